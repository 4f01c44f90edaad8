//! How records stand, in a glyph's state and a word: one place for all screens. Pure.

use jiff::Timestamp;
use proto::operator::v1::{Agent, Certificate, Event, Issuer, Job, Order, PhaseStep, Target};
use proto::types::v1::TargetStatus;
use ratatui::text::{Line, Span};

use crate::app::list::Record;
use crate::client::target_status;
use crate::theme::{State, Theme};
use crate::widgets::text::{clock, safe, until, wrap};

impl Record for Certificate {
    fn id(&self) -> &str {
        &self.id
    }

    fn state(&self) -> State {
        certificate_state(self)
    }
}

impl Record for Agent {
    fn id(&self) -> &str {
        &self.id
    }

    fn state(&self) -> State {
        agent_state(self)
    }
}

impl Record for Job {
    fn id(&self) -> &str {
        &self.id
    }

    fn state(&self) -> State {
        job_state(&self.state)
    }
}

impl Record for Issuer {
    fn id(&self) -> &str {
        &self.id
    }

    fn state(&self) -> State {
        issuer_state(self)
    }
}

/// Returns how an issuer stands.
pub(crate) fn issuer_state(issuer: &Issuer) -> State {
    match (issuer.account_status.as_str(), issuer.limits.as_str()) {
        ("terms" | "closed" | "external" | "unusable" | "removed", _) => State::Bad,
        _ if issuer.checking => State::Busy,
        _ if issuer.problem.is_some() => State::Bad,
        ("rolling", _) => State::Busy,
        (_, "closed" | "waiting") => State::Warn,
        ("valid" | "private", _) => State::Ok,
        _ => State::Idle,
    }
}

/// Returns what an account's state means, and what helps.
pub(crate) fn account_word(status: &str) -> &'static str {
    match status {
        "valid" => "the CA knows the account and its key",
        "private" => "a CA of this controller: it has no account",
        "none" => "none yet; it is made when the issuer is tried",
        "rolling" => "its key is being changed; orders wait",
        "terms" => "HALTED: the CA wants its terms agreed to",
        "closed" => "HALTED: the CA closed the account",
        "external" => "HALTED: the CA wants another external account",
        "unusable" => "HALTED: its directory cannot be used",
        "removed" => "HALTED: it was removed after the backup that was restored",
        _ => "",
    }
}

/// Whether the order is being worked on.
pub(crate) fn is_running(order: &Order) -> bool {
    !matches!(order.phase.as_str(), "" | "completed" | "failed" | "waiting")
}

/// Returns how a certificate stands as a whole.
pub(crate) fn certificate_state(record: &Certificate) -> State {
    let running = record.order.as_ref().is_some_and(is_running);
    match (record.status.as_str(), record.deployment.as_str()) {
        ("failed" | "expired" | "revoked", _) | ("active", "failed") => State::Bad,
        _ if running => State::Busy,
        ("active", "partial") => State::Warn,
        ("active", "pending") => State::Busy,
        ("active", _)
            if !record.issues.is_empty() || record.targets.iter().any(|target| target_warns(target.status)) =>
        {
            State::Warn
        }
        ("active", _) => State::Ok,
        _ if !record.issues.is_empty() => State::Warn,
        _ => State::Idle,
    }
}

fn target_warns(status: i32) -> bool {
    target_state(status).needs_someone()
}

/// Returns the certificate's state in a word or two.
pub(crate) fn certificate_word(record: &Certificate) -> String {
    if record.deleting {
        return "deleting".to_owned();
    }
    match &record.order {
        Some(order) if is_running(order) => {
            let (done, all) = phase_count(order);
            format!("issuing {done}/{all}")
        }
        _ if record.status == "active" && matches!(record.deployment.as_str(), "partial" | "failed" | "pending") => {
            format!("deploy {}", record.deployment)
        }
        _ if record.pause.is_some() => format!("{} paused", record.status),
        _ if record.rollback.is_some() => "rolled back".to_owned(),
        _ => record.status.clone(),
    }
}

/// Returns how many of an order's phases are over, and how many there are.
pub(crate) fn phase_count(order: &Order) -> (usize, usize) {
    (order.phases.iter().filter(|step| step.state == "done").count(), order.phases.len())
}

/// Returns when a certificate renews, in a word.
pub(crate) fn renews(record: &Certificate, now: Timestamp) -> String {
    match &record.order {
        Some(order) if is_running(order) => "now".to_owned(),
        Some(order) if order.retry_at > 0 => format!("retry {}", until(now, order.retry_at)),
        _ if !record.auto_renew => "off".to_owned(),
        _ => until(now, record.renew_at),
    }
}

/// Returns how many targets are proven, of all.
pub(crate) fn targets_ok(record: &Certificate) -> String {
    let applied = i32::from(TargetStatus::Applied);
    let ok = record.targets.iter().filter(|target| target.status == applied).count();
    format!("{ok}/{}", record.targets.len())
}

/// Returns how a target stands.
pub(crate) fn target_state(status: i32) -> State {
    match TargetStatus::try_from(status) {
        Ok(TargetStatus::Applied) => State::Ok,
        Ok(TargetStatus::Unspecified | TargetStatus::Pending) => State::Idle,
        Ok(TargetStatus::Unproven | TargetStatus::Drifted) => State::Warn,
        Ok(TargetStatus::NotLive | TargetStatus::RolledBack | TargetStatus::Failed | TargetStatus::NeedsOperator) => {
            State::Bad
        }
        Err(_) => State::Warn,
    }
}

/// Returns a target's state in words: what it does just now, or how it ended.
pub(crate) fn target_word(target: &Target) -> String {
    match target.doing.as_str() {
        "" if !target.waits.is_empty() && target.status() == TargetStatus::Pending => "held".to_owned(),
        "" => target_status(target.status).replace('_', " "),
        doing => doing.to_owned(),
    }
}

/// Returns how an agent stands.
pub(crate) fn agent_state(agent: &Agent) -> State {
    match agent.status.as_str() {
        _ if !agent.problems.is_empty() => State::Bad,
        "connected" => State::Ok,
        "offline" => State::Bad,
        "expired" => State::Warn,
        "revoked" => State::Off,
        _ => State::Idle,
    }
}

/// Returns how a job stands.
pub(crate) fn job_state(state: &str) -> State {
    match state {
        "running" => State::Busy,
        "waiting" => State::Idle,
        "succeeded" => State::Ok,
        "partial" => State::Warn,
        "failed" => State::Bad,
        _ => State::Idle,
    }
}

/// Returns how a phase stands.
pub(crate) fn phase_state(step: &PhaseStep) -> State {
    match step.state.as_str() {
        "done" => State::Ok,
        "running" => State::Busy,
        "waiting" => State::Warn,
        "failed" => State::Bad,
        _ => State::Idle,
    }
}

/// Returns a wire word as people read it: `dns_check` is `Dns check`.
pub(crate) fn title(word: &str) -> String {
    let spaced = word.replace('_', " ");
    let mut chars = spaced.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Returns an event as lines: when, how it stands, who, what; its problem below.
pub(crate) fn event_lines(event: &Event, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let state = match event.severity.as_str() {
        "error" => State::Bad,
        "warn" => State::Warn,
        _ => State::Ok,
    };
    let lead = 11;
    let text = format!("{}  ({})", safe(&event.message), safe(&event.actor));
    let mut lines = Vec::new();
    for (index, part) in wrap(&text, width.saturating_sub(lead)).into_iter().enumerate() {
        lines.push(if index == 0 {
            Line::from(vec![
                Span::styled(format!("{} ", clock(event.at)), theme.dim()),
                Span::styled(theme.glyph(state), theme.state(state)),
                Span::raw(format!(" {part}")),
            ])
        } else {
            Line::from(format!("{}{part}", " ".repeat(lead)))
        });
    }
    if let Some(problem) = &event.problem {
        lines.extend(problem_lines(problem, theme, width, lead));
    }
    lines
}

/// Returns what went wrong as lines: cause and hint, indented.
pub(crate) fn problem_lines(
    problem: &proto::types::v1::Problem,
    theme: Theme,
    width: usize,
    indent: usize,
) -> Vec<Line<'static>> {
    let lead = " ".repeat(indent);
    let mut lines = Vec::new();
    let room = width.saturating_sub(indent + 5);
    for (word, text) in [("why", &problem.cause), ("do", &problem.hint)] {
        for (index, part) in wrap(text, room).into_iter().filter(|part| !part.is_empty()).enumerate() {
            let word = if index == 0 { word } else { "" };
            lines.push(Line::from(vec![
                Span::raw(lead.clone()),
                Span::styled(format!("{word:<4} "), theme.dim()),
                Span::raw(part),
            ]));
        }
    }
    lines
}

/// Returns the names of a glyph and a word, painted: the state at the right of a record's heading.
pub(crate) fn badge(state: State, word: &str, theme: Theme) -> Line<'static> {
    Line::from(vec![
        Span::styled(theme.glyph(state), theme.state(state)),
        Span::styled(format!(" {}", safe(word)), theme.state(state)),
    ])
}

/// Returns a pair of label and value as a line.
pub(crate) fn pair(label: &str, value: &str, theme: Theme) -> Line<'static> {
    Line::from(vec![Span::styled(format!("{label:<10}"), theme.dim()), Span::raw(safe(value))])
}
