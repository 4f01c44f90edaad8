//! The audit: acts in a table, and its exports.

use jiff::Timestamp;
use proto::audit::Line;
use serde::Serialize;

use super::pdf::Pages;
use super::table::Table;
use super::{safe, some, time};
use crate::client::{AuditAct, ClientError, ErrorKind};

/// What spreadsheets take for the beginning of a formula (OWASP, CSV injection).
const FORMULA_SIGNS: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

#[derive(Serialize)]
struct ActView {
    seq: u64,
    at: Timestamp,
    actor: String,
    from: String,
    act: String,
    subject: String,
    detail: Option<String>,
    result: String,
    why: Option<String>,
}

/// Returns acts as a JSON list.
pub(crate) fn json_list(acts: &[AuditAct]) -> String {
    let view = |act: &AuditAct| ActView {
        seq: act.line.seq,
        at: act.line.at,
        actor: safe(&act.line.actor),
        from: safe(&act.line.from),
        act: safe(&act.line.act),
        subject: safe(&act.line.subject),
        detail: some(act.detail()),
        result: safe(act.result()),
        why: some(act.why()),
    };
    super::json_list("AuditList", acts.iter().map(view).collect())
}

/// Returns acts as a table.
pub(crate) fn table(acts: &[AuditAct], now: Timestamp, wide: bool) -> Table {
    let mut head = vec!["WHEN", "WHO", "ACT", "SUBJECT", "RESULT", "DETAIL"];
    if wide {
        head = vec!["LINE", "AT", "WHO", "FROM", "ACT", "SUBJECT", "RESULT", "DETAIL"];
    }
    let mut table = Table::new(&head);
    for act in acts {
        let line = &act.line;
        let detail =
            [act.detail(), act.why()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
        let (who, what, about) = (line.actor.clone(), line.act.clone(), line.subject.clone());
        table.row(if wide {
            let at = time::absolute(line.at);
            vec![line.seq.to_string(), at, who, line.from.clone(), what, about, act.result().to_owned(), detail]
        } else {
            vec![time::relative(now, line.at), who, what, about, act.result().to_owned(), detail]
        });
    }
    table
}

/// Returns lines for a spreadsheet. A cell that could be taken for a formula begins with an apostrophe.
pub(crate) fn csv(lines: &[String]) -> Result<Vec<u8>, ClientError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let written = || -> Result<Vec<u8>, csv::Error> {
        writer.write_record(["line", "at", "actor", "from", "act", "subject", "detail", "result", "answers"])?;
        for line in lines.iter().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            let answers = line.answers.map(|seq| seq.to_string()).unwrap_or_default();
            let cells = [
                line.seq.to_string(),
                line.at.to_string(),
                line.actor,
                line.from,
                line.act,
                line.subject,
                line.detail,
                line.result,
                answers,
            ];
            writer.write_record(cells.map(|cell| defused(&cell)))?;
        }
        writer.into_inner().map_err(|error| error.into_error().into())
    };
    let failed = |error: csv::Error| {
        let hint = "use --format jsonl, and report this";
        ClientError::local(ErrorKind::Failed, "EXPORT_FAILED", "the CSV could not be made", &error.to_string(), hint)
    };
    written().map_err(failed)
}

fn defused(cell: &str) -> String {
    let cell = safe(cell);
    if cell.starts_with(FORMULA_SIGNS) { format!("'{cell}") } else { cell }
}

/// Returns lines as pages for paper: PDF 1.7, A4.
pub(crate) fn pdf(lines: &[String], now: Timestamp) -> Vec<u8> {
    let mut pages = Pages::new(&format!("certwright audit, {} lines, printed {}", lines.len(), time::absolute(now)));
    for line in lines.iter().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
        let answers = line.answers.map(|seq| format!(" {seq}")).unwrap_or_default();
        pages.line(&format!(
            "{:>8}  {}  {}  {}  {}  {}{answers}",
            line.seq,
            time::absolute(line.at),
            safe(&line.actor),
            safe(&line.act),
            safe(&line.subject),
            safe(&line.result),
        ));
        pages.line(&format!("          from {}; {}", safe(&line.from), safe(&line.detail)));
    }
    pages.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64, result: &str, answers: Option<u64>) -> Line {
        Line {
            seq,
            at: Timestamp::UNIX_EPOCH,
            actor: "=cmd|' /C calc'!A0".into(),
            from: "uid 0".into(),
            act: "RenewCertificate".into(),
            subject: "+web".into(),
            detail: "a,\"b\"".into(),
            result: result.into(),
            answers,
            previous: String::new(),
        }
    }

    #[test]
    fn no_cell_is_a_formula() {
        let text = serde_json::to_string(&line(1, "asked", None)).unwrap();
        let table = String::from_utf8(csv(&[text]).unwrap()).unwrap();
        assert!(table.contains("'=cmd|") && table.contains(",'+web,") && table.contains("\"a,\"\"b\"\"\""), "{table}");
    }

    #[test]
    fn paper_has_every_line() {
        let text = serde_json::to_string(&line(1, "asked", None)).unwrap();
        let pages = pdf(&vec![text; 200], Timestamp::UNIX_EPOCH);
        assert!(pages.starts_with(b"%PDF-1.7") && pages.trim_ascii_end().ends_with(b"%%EOF"));
        let text = String::from_utf8_lossy(&pages);
        assert_eq!(text.matches("1  1970-01-01 00:00:00Z").count(), 200);
        assert!(text.contains("page 8 of 8"), "400 lines of 50");
    }
}
