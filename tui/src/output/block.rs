//! One record for people: a title, labelled lines, sections. Values are made safe here.

use proto::types::v1::Problem;

use super::{safe, safe_lines};

/// Width of the label column.
const LABEL_WIDTH: usize = 12;

/// Lines of one record.
#[derive(Debug, Default)]
pub(crate) struct Block {
    out: String,
    depth: usize,
}

impl Block {
    /// Starts with a title line.
    pub(crate) fn titled(title: &str) -> Self {
        Self { out: format!("{}\n", safe(title)), depth: 1 }
    }

    /// Adds a section's title; what follows stands below it.
    pub(crate) fn section(&mut self, title: &str) {
        self.depth = 0;
        self.line(title);
        self.depth = 1;
    }

    /// Adds a plain line.
    pub(crate) fn line(&mut self, text: &str) {
        self.push(&safe(text));
    }

    /// Adds a line one step further in.
    pub(crate) fn below(&mut self, text: &str) {
        self.push(&format!("    {}", safe(text)));
    }

    /// Adds `label  value`; nothing when the value is empty.
    pub(crate) fn field(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            self.push(&format!("{label:<LABEL_WIDTH$} {}", safe(value)));
        }
    }

    /// Adds what went wrong, why, and what to do.
    pub(crate) fn problem(&mut self, problem: Option<&Problem>) {
        let Some(problem) = problem else { return };
        self.below(&format!("error: {}", problem.message));
        for line in safe_lines(&problem.cause).lines() {
            self.below(&format!("because: {line}"));
        }
        if !problem.hint.is_empty() {
            self.below(&format!("try: {}", problem.hint));
        }
    }

    /// Returns the text.
    pub(crate) fn render(self) -> String {
        self.out
    }

    fn push(&mut self, text: &str) {
        self.out.push_str(&"  ".repeat(self.depth));
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }
}
