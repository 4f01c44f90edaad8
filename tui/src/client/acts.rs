//! The audit as people look at it: what was asked with what came of it as one act, and which acts are looked for. Used by
//! `output`, the command line and the screens. Pure.

use std::collections::HashMap;

use jiff::Timestamp;
use proto::audit::Line;

/// What was asked, with what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditAct {
    /// The line that asked, or that refused.
    pub line: Line,
    /// The line that says what came of it; none while nothing is known.
    pub end: Option<Line>,
}

impl AuditAct {
    /// Returns done, failed, refused, or asked: then nothing is known of the end.
    #[must_use]
    pub fn result(&self) -> &str {
        self.end.as_ref().map_or(&self.line.result, |end| &end.result)
    }

    /// Returns what was asked besides act and subject.
    #[must_use]
    pub fn detail(&self) -> &str {
        if self.line.result == "refused" { "" } else { &self.line.detail }
    }

    /// Returns why it failed or was refused.
    #[must_use]
    pub fn why(&self) -> &str {
        match &self.end {
            Some(end) => &end.detail,
            None if self.line.result == "refused" => &self.line.detail,
            None => "",
        }
    }
}

/// Puts what came of an act beside what was asked, in the order of the lines.
#[must_use]
pub fn fold_audit(lines: Vec<Line>) -> Vec<AuditAct> {
    let (ends, asked): (Vec<Line>, Vec<Line>) = lines.into_iter().partition(|line| line.answers.is_some());
    let mut ends: HashMap<u64, Line> = ends.into_iter().filter_map(|line| Some((line.answers?, line))).collect();
    asked.into_iter().map(|line| AuditAct { end: ends.remove(&line.seq), line }).collect()
}

/// Which acts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// From this instant on.
    pub start: Option<Timestamp>,
    /// Before this instant.
    pub end: Option<Timestamp>,
    /// Actor or subject contains this.
    pub name: String,
}

impl AuditFilter {
    /// Reads `since:2026-11-21 until:2026-11-22T08:00:00Z NAME`, each part at most once and in any order.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        let mut names = Vec::new();
        for word in text.split_whitespace() {
            if let Some(at) = word.strip_prefix("since:") {
                filter.start = Some(parse_instant(at)?);
            } else if let Some(at) = word.strip_prefix("until:") {
                filter.end = Some(parse_instant(at)?);
            } else {
                names.push(word);
            }
        }
        filter.name = names.join(" ");
        Ok(filter)
    }

    /// Returns the command that takes these acts away as a file.
    #[must_use]
    pub fn export_command(&self) -> String {
        let mut command = "certwright audit export --out audit.jsonl".to_owned();
        for (flag, at) in [("--start", self.start), ("--end", self.end)] {
            command.extend(at.map(|at| format!(" {flag} {at}")));
        }
        if !self.name.is_empty() {
            let name = shlex::try_quote(&self.name).map_or_else(|_| String::new(), std::borrow::Cow::into_owned);
            command.extend([" --name ", name.as_str()]);
        }
        command
    }
}

/// Reads `2026-11-21T08:00:00Z`, or `2026-11-21` for its beginning in UTC.
///
/// # Errors
/// What was expected instead.
pub fn parse_instant(text: &str) -> Result<Timestamp, String> {
    let date = || text.parse::<jiff::civil::Date>().and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC));
    let instant = text.parse::<Timestamp>().or_else(|_no_instant| date().map(|zoned| zoned.timestamp()));
    instant.map_err(|_neither| "expected 2026-11-21 or 2026-11-21T08:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64, result: &str, answers: Option<u64>) -> Line {
        Line {
            seq,
            at: Timestamp::UNIX_EPOCH,
            actor: "local:alice".into(),
            from: "uid 1000".into(),
            act: "RenewCertificate".into(),
            subject: "web".into(),
            detail: format!("detail {seq}"),
            result: result.into(),
            answers,
            previous: String::new(),
        }
    }

    #[test]
    fn an_act_is_one_with_what_came_of_it() {
        let lines =
            vec![line(5, "failed", Some(4)), line(4, "asked", None), line(3, "asked", None), line(2, "refused", None)];
        let acts = fold_audit(lines);
        let told: Vec<_> = acts.iter().map(|act| (act.line.seq, act.result(), act.detail(), act.why())).collect();
        let expected =
            [(4, "failed", "detail 4", "detail 5"), (3, "asked", "detail 3", ""), (2, "refused", "", "detail 2")];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_filter_is_read_and_said_as_a_command() {
        let filter = AuditFilter::parse("bob  since:2026-11-21 until:2026-11-22T08:00:00Z").unwrap();
        assert_eq!(filter.name, "bob");
        let command = filter.export_command();
        assert!(command.ends_with("--start 2026-11-21T00:00:00Z --end 2026-11-22T08:00:00Z --name bob"), "{command}");
        assert!(AuditFilter::parse("since:yesterday").unwrap_err().contains("2026-11-21"));
        assert_eq!(AuditFilter::parse("  ").unwrap(), AuditFilter::default());
        let quoted = AuditFilter::parse("a;b c").unwrap().export_command();
        assert!(quoted.ends_with("--name 'a;b c'"), "{quoted}");
        assert_eq!(parse_instant("2026-11-21").unwrap(), parse_instant("2026-11-21T00:00:00Z").unwrap());
    }
}
