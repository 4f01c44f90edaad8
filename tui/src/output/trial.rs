//! Tests of targets: what a deployment would meet, step by step, and which of them fail.

use proto::operator::v1::TargetTest;
use proto::types::v1::TestStep;
use serde::Serialize;

use super::block::Block;
use super::failure::ProblemView;
use super::{safe, some};
use crate::client::{test_result, test_verdict};

#[derive(Serialize)]
struct TestView {
    target: Option<String>,
    agent: String,
    dir: String,
    result: &'static str,
    error: Option<ProblemView>,
    steps: Vec<StepView>,
}

#[derive(Serialize)]
struct StepView {
    name: String,
    subject: Option<String>,
    result: &'static str,
    found: Option<String>,
    error: Option<ProblemView>,
    took_ms: u64,
}

impl From<&TargetTest> for TestView {
    fn from(test: &TargetTest) -> Self {
        Self {
            target: some(&test.target_id),
            agent: safe(&test.agent),
            dir: safe(&test.dir),
            result: test_verdict(test),
            error: test.problem.as_ref().map(ProblemView::from),
            steps: test.steps.iter().map(StepView::from).collect(),
        }
    }
}

impl From<&TestStep> for StepView {
    fn from(step: &TestStep) -> Self {
        Self {
            name: safe(&step.name),
            subject: some(&step.subject),
            result: test_result(step.result),
            found: some(&step.found),
            error: step.problem.as_ref().map(ProblemView::from),
            took_ms: step.took_ms,
        }
    }
}

/// Returns tests as a JSON list.
pub(crate) fn json_list(tests: &[TargetTest]) -> String {
    super::json_list("TargetTestList", tests.iter().map(TestView::from).collect())
}

/// Returns `AGENT DIR RESULT`, one per line.
pub(crate) fn names(tests: &[TargetTest]) -> String {
    let line = |test: &TargetTest| format!("{} {} {}\n", safe(&test.agent), safe(&test.dir), test_verdict(test));
    tests.iter().map(line).collect()
}

/// Returns every target with its steps.
pub(crate) fn text(tests: &[TargetTest]) -> String {
    tests.iter().map(block).collect()
}

fn block(test: &TargetTest) -> String {
    let mut block = Block::titled(&format!("{}  {}  {}", test.agent, test.dir, test_verdict(test)));
    block.problem(test.problem.as_ref());
    for step in &test.steps {
        block.line(&line(step));
        block.problem(step.problem.as_ref());
    }
    block.render()
}

/// Returns one step on a line.
pub(crate) fn line(step: &TestStep) -> String {
    let found = if step.found.is_empty() { String::new() } else { format!(": {}", step.found) };
    format!("{:<7} {:<9} {}{found}", test_result(step.result), step.name, step.subject)
}
