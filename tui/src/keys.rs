//! The key map as data: help, hints and palette are made from this one table, and tests check it for conflicts.
//! It decides nothing: `app` asks which action a key means in a context. Names and keys as in tui.md §2.4.

/// A key as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A character.
    Char(char),
    /// A character with Ctrl, lower case.
    Ctrl(char),
    /// Return.
    Enter,
    /// Escape.
    Esc,
    /// Backspace, or Ctrl-h.
    Backspace,
    /// Tab.
    Tab,
    /// Shift-Tab.
    BackTab,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow left.
    Left,
    /// Arrow right.
    Right,
    /// Home.
    Home,
    /// End.
    End,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Delete.
    Delete,
    /// A function key.
    F(u8),
}

impl Key {
    /// Returns the character that the key types, if it types one.
    pub(crate) fn typed(self) -> Option<char> {
        match self {
            Self::Char(ch) => Some(ch),
            _ => None,
        }
    }

    /// Returns the key's name in help and hints.
    pub(crate) fn label(self) -> String {
        match self {
            Self::Char(' ') => "Space".to_owned(),
            Self::Char(ch) => ch.to_string(),
            Self::Ctrl(ch) => format!("^{}", ch.to_ascii_uppercase()),
            Self::F(number) => format!("F{number}"),
            Self::Enter => "Enter".to_owned(),
            Self::Esc => "Esc".to_owned(),
            Self::Backspace => "Backspace".to_owned(),
            Self::Tab => "Tab".to_owned(),
            Self::BackTab => "Shift-Tab".to_owned(),
            Self::Up => "Up".to_owned(),
            Self::Down => "Down".to_owned(),
            Self::Left => "Left".to_owned(),
            Self::Right => "Right".to_owned(),
            Self::Home => "Home".to_owned(),
            Self::End => "End".to_owned(),
            Self::PageUp => "PgUp".to_owned(),
            Self::PageDown => "PgDn".to_owned(),
            Self::Delete => "Del".to_owned(),
        }
    }
}

/// Where a key is pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Context {
    /// The overview.
    Overview,
    /// The list of certificates.
    Certificates,
    /// One certificate.
    Certificate,
    /// The list of agents.
    Agents,
    /// One agent.
    Agent,
    /// The list of jobs.
    Jobs,
    /// One act on many.
    Job,
    /// The list of issuers.
    Issuers,
    /// One issuer.
    Issuer,
    /// Operators and invitations.
    Team,
    /// Who did what.
    Audit,
    /// One act.
    Act,
    /// How a restore stands.
    Restore,
    /// The identity CA and its rotation.
    IdentityCa,
    /// A form: the wizard's steps, the enrolment's name.
    Form,
    /// A one-time command, waiting for whoever runs it.
    Waiting,
    /// A one-line prompt: palette, filter.
    Prompt,
    /// A question to confirm.
    Dialog,
    /// Help, messages.
    Reading,
}

impl Context {
    /// Returns the context's name in the help.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Certificates => "Certificates",
            Self::Certificate => "Certificate",
            Self::Agents => "Agents",
            Self::Agent => "Agent",
            Self::Jobs => "Jobs",
            Self::Job => "Job",
            Self::Issuers => "Issuers",
            Self::Issuer => "Issuer",
            Self::Team => "Team",
            Self::Audit => "Audit",
            Self::Act => "Act",
            Self::Restore => "Restore",
            Self::IdentityCa => "Identity CA",
            Self::Form => "Form",
            Self::Waiting => "Command to run",
            Self::Prompt => "Prompt",
            Self::Dialog => "Question",
            Self::Reading => "Reading",
        }
    }
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// One row down.
    MoveDown,
    /// One row up.
    MoveUp,
    /// One page down.
    PageDown,
    /// One page up.
    PageUp,
    /// First row.
    Top,
    /// Last row.
    Bottom,
    /// Next row that is not ok.
    NextProblem,
    /// Previous row that is not ok.
    PrevProblem,
    /// Open the record under the cursor.
    Open,
    /// Close the top layer, clear the filter, leave the record.
    Back,
    /// Next tab.
    TabNext,
    /// Previous tab.
    TabPrev,
    /// To the overview.
    GoOverview,
    /// To the certificates.
    GoCertificates,
    /// To the agents.
    GoAgents,
    /// To the jobs.
    GoJobs,
    /// To the issuers.
    GoIssuers,
    /// To the team.
    GoTeam,
    /// To the audit.
    GoAudit,
    /// To the restore.
    GoRestore,
    /// To the identity CA.
    GoIdentityCa,
    /// Copy the command that shows.
    Copy,
    /// Wait for a second key that names a place.
    GoMenu,
    /// The place before this one.
    GoLast,
    /// The command line.
    Palette,
    /// Filter this list.
    Filter,
    /// Wait for a second key that names an order.
    Sort,
    /// Read again; retry now while offline.
    Refresh,
    /// The side preview.
    Preview,
    /// The keys.
    Help,
    /// The messages of this session.
    Messages,
    /// A new record.
    New,
    /// Change the settings of what shows.
    Edit,
    /// Try now.
    Test,
    /// Look at a certificate's challenges as a CA would.
    Challenges,
    /// Another account key.
    Rollover,
    /// Renew; of a job: what failed, once more.
    Run,
    /// Renew with a new key.
    Rekey,
    /// Take back what has not begun.
    Cancel,
    /// Mark the row.
    Mark,
    /// Mark all that the filter finds.
    MarkAll,
    /// Deploy.
    Deploy,
    /// Delete or revoke.
    Delete,
    /// Let an agent back.
    Consent,
    /// Revoke a version at its CA.
    RevokeVersion,
    /// Hold still, or lift that.
    Pause,
    /// Take a backup.
    Backup,
    /// Accept a restore.
    Accept,
    /// Make the next identity CA.
    CaPrepare,
    /// Let it sign.
    CaActivate,
    /// Drop the old one.
    CaRetire,
    /// One step back.
    CaAbort,
    /// Leave the dashboard.
    Quit,
    /// Paint everything again.
    Redraw,
    /// Stop until the shell continues.
    Suspend,
    /// Cancel the current input; twice quits.
    Interrupt,
    /// Next field.
    FieldNext,
    /// Previous field.
    FieldPrev,
    /// Choose or toggle.
    Toggle,
    /// Go on with the form.
    Continue,
    /// Answer yes.
    Yes,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Binding {
    /// What it does.
    pub(crate) action: Action,
    /// Stable name, for documents and configuration.
    pub(crate) id: &'static str,
    /// Keys, the most usual first.
    pub(crate) keys: &'static [Key],
    /// Where it works.
    pub(crate) contexts: &'static [Context],
    /// One or two words for the hints line.
    pub(crate) hint: &'static str,
    /// At most 40 characters for the help.
    pub(crate) help: &'static str,
    /// 0 reads; 1 changes something; 2 destroys something.
    pub(crate) danger: u8,
    /// Whether the palette offers it.
    pub(crate) palette: bool,
}

use Action as A;
use Context as C;
use Key::{BackTab, Backspace, Char, Ctrl, Down, End, Enter, Esc, F, Home, Left, PageDown, PageUp, Right, Tab, Up};

const PLACES: &[C] = &[
    C::Overview,
    C::Certificates,
    C::Certificate,
    C::Agents,
    C::Agent,
    C::Jobs,
    C::Job,
    C::Issuers,
    C::Issuer,
    C::Team,
    C::Audit,
    C::Act,
    C::Restore,
    C::IdentityCa,
    C::Waiting,
];
const LISTS: &[C] = &[
    C::Overview,
    C::Certificates,
    C::Certificate,
    C::Agents,
    C::Agent,
    C::Jobs,
    C::Job,
    C::Issuers,
    C::Issuer,
    C::Team,
    C::Audit,
    C::Act,
    C::Restore,
    C::IdentityCa,
    C::Reading,
];
const FILTERED: &[C] = &[C::Certificates, C::Agents, C::Audit];
const RECORDS: &[C] = &[C::Certificate, C::Agent, C::Issuer];
const OPENS: &[C] =
    &[C::Overview, C::Certificates, C::Agents, C::Jobs, C::Job, C::Agent, C::Issuers, C::Audit, C::IdentityCa];
/// Lists in which `Space` marks nothing.
const UNMARKED: &[C] = &[
    C::Overview,
    C::Certificate,
    C::Agents,
    C::Agent,
    C::Jobs,
    C::Job,
    C::Issuers,
    C::Issuer,
    C::Team,
    C::Audit,
    C::Act,
    C::Restore,
    C::IdentityCa,
    C::Reading,
];
const JOBS: &[C] = &[C::Jobs, C::Job];
const EDITED: &[C] = &[C::Issuers, C::Issuer, C::Certificate];
const ISSUERS: &[C] = &[C::Issuers, C::Issuer];
const CERTIFICATES: &[C] = &[C::Certificates, C::Certificate];
const EVERYWHERE: &[C] = &Context::ALL;

impl Context {
    /// Every context.
    pub(crate) const ALL: [Self; 19] = [
        Self::Overview,
        Self::Certificates,
        Self::Certificate,
        Self::Agents,
        Self::Agent,
        Self::Jobs,
        Self::Job,
        Self::Issuers,
        Self::Issuer,
        Self::Team,
        Self::Audit,
        Self::Act,
        Self::Restore,
        Self::IdentityCa,
        Self::Form,
        Self::Waiting,
        Self::Prompt,
        Self::Dialog,
        Self::Reading,
    ];
}

const fn row(
    action: Action,
    id: &'static str,
    keys: &'static [Key],
    contexts: &'static [Context],
    hint: &'static str,
    help: &'static str,
) -> Binding {
    Binding { action, id, keys, contexts, hint, help, danger: 0, palette: false }
}

const fn changing(danger: u8, row: Binding) -> Binding {
    Binding { danger, palette: true, ..row }
}

const fn offered(row: Binding) -> Binding {
    Binding { palette: true, ..row }
}

/// The table. Hints follow its order, so the most useful stand first.
pub(crate) const TABLE: &[Binding] = &[
    row(A::Open, "open", &[Enter], OPENS, "open", "open the record under the cursor"),
    row(A::Continue, "form.continue", &[Enter], &[C::Form], "continue", "next field, or go on"),
    row(A::Open, "prompt.run", &[Enter], &[C::Prompt], "run", "run, or keep the filter"),
    row(A::Open, "dialog.answer", &[Enter], &[C::Dialog], "answer", "the answer in brackets"),
    row(A::Yes, "dialog.yes", &[Char('y')], &[C::Dialog], "yes", "yes, do it"),
    changing(1, row(A::New, "new", &[Char('n')], &[C::Overview, C::Certificates], "new", "new certificate")),
    changing(1, row(A::New, "enroll", &[Char('n')], &[C::Agents], "enrol", "enrol an agent: one command to run")),
    changing(1, row(A::New, "issuer.new", &[Char('n')], &[C::Issuers], "new", "add an issuer")),
    changing(1, row(A::New, "invite", &[Char('n')], &[C::Team], "add", "add or invite an operator")),
    changing(1, row(A::Edit, "role", &[Char('e')], &[C::Team], "role", "give an operator another role")),
    changing(
        2,
        row(A::Delete, "operator.remove", &[Char('D')], &[C::Team], "remove", "remove an operator or an invitation"),
    ),
    changing(
        2,
        row(A::Accept, "restore.accept", &[Char('A')], &[C::Restore], "accept", "accept the restore: act again"),
    ),
    changing(
        1,
        row(A::CaPrepare, "identity-ca.prepare", &[Char('n')], &[C::IdentityCa], "prepare", "make the next CA"),
    ),
    changing(
        1,
        row(A::CaActivate, "identity-ca.activate", &[Char('A')], &[C::IdentityCa], "activate", "let the next CA sign"),
    ),
    changing(
        2,
        row(A::CaRetire, "identity-ca.retire", &[Char('D')], &[C::IdentityCa], "retire", "drop the old CA for good"),
    ),
    changing(1, row(A::CaAbort, "identity-ca.abort", &[Char('c')], &[C::IdentityCa], "abort", "go one step back")),
    changing(1, row(A::Backup, "backup", &[Char('B')], &[C::Overview, C::Restore], "backup", "take a sealed backup")),
    row(A::Copy, "copy", &[Char('y')], &[C::Audit, C::Waiting], "copy", "copy the command that shows"),
    row(A::TabNext, "tab.next", &[Tab, Char(']'), Char('l'), Right], RECORDS, "tabs", "next tab"),
    row(A::TabPrev, "tab.prev", &[BackTab, Char('['), Char('h'), Left], RECORDS, "", "previous tab"),
    changing(1, row(A::Test, "test", &[Char('t')], ISSUERS, "test", "read its directory, prove the account")),
    changing(1, row(A::Test, "detect", &[Char('t')], &[C::Agent], "detect", "look at its server anew")),
    changing(1, row(A::Edit, "edit", &[Char('e')], EDITED, "edit", "change its settings, or the limits shown")),
    changing(1, row(A::Rollover, "rollover", &[Char('K')], ISSUERS, "new key", "give the account another key")),
    changing(2, row(A::Delete, "remove", &[Char('D')], ISSUERS, "remove", "remove an issuer that nothing uses")),
    changing(1, row(A::Run, "run", &[Char('r')], CERTIFICATES, "renew", "renew now")),
    changing(1, row(A::Run, "retry", &[Char('r')], JOBS, "retry", "do again what failed")),
    changing(1, row(A::Cancel, "job.cancel", &[Char('c')], JOBS, "cancel", "take back what has not begun")),
    row(A::Mark, "mark", &[Char(' ')], &[C::Certificates], "mark", "mark the row, and go down"),
    changing(1, row(A::Deploy, "deploy", &[Char('d')], CERTIFICATES, "deploy", "deploy the current version again")),
    row(A::Filter, "filter", &[Char('/')], FILTERED, "filter", "filter this list"),
    row(A::Sort, "sort", &[Char('s')], &[C::Certificates], "sort", "sort by urgency, name or expiry"),
    row(A::Preview, "preview", &[Char('p')], &[C::Certificates], "", "side preview (wide windows)"),
    row(A::FieldNext, "field.next", &[Tab, Down], &[C::Form, C::Prompt, C::Dialog], "next", "next field or choice"),
    row(A::FieldPrev, "field.prev", &[BackTab, Up], &[C::Form, C::Prompt, C::Dialog], "", "previous field or choice"),
    row(A::Toggle, "field.toggle", &[Char(' ')], &[C::Form], "choose", "choose or toggle"),
    changing(2, row(A::Delete, "delete", &[Char('D')], CERTIFICATES, "delete", "delete the certificate")),
    changing(2, row(A::RevokeVersion, "revoke.version", &[Char('V')], CERTIFICATES, "revoke", "revoke at the CA")),
    changing(
        2,
        row(A::Delete, "revoke", &[Char('D')], &[C::Agents, C::Agent], "revoke", "revoke the agent, or forget it"),
    ),
    changing(
        1,
        row(A::Consent, "consent", &[Char('A')], &[C::Agents, C::Agent], "consent", "let it back after a long absence"),
    ),
    changing(1, row(A::Rekey, "rekey", &[Char('K')], CERTIFICATES, "", "renew with a new key")),
    row(A::MarkAll, "mark.all", &[Char('*')], &[C::Certificates], "", "mark all that the filter finds"),
    changing(1, row(A::Pause, "pause", &[Char('P')], CERTIFICATES, "", "pause it, or lift its pause")),
    changing(1, row(A::Pause, "pause.all", &[Char('P')], &[C::Overview], "", "pause everything, or lift that")),
    row(
        A::Back,
        "back",
        &[Char('q'), Esc, Backspace],
        &[
            C::Overview,
            C::Certificates,
            C::Certificate,
            C::Agents,
            C::Agent,
            C::Jobs,
            C::Job,
            C::Issuers,
            C::Issuer,
            C::Team,
            C::Audit,
            C::Act,
            C::Restore,
            C::IdentityCa,
            C::Waiting,
            C::Reading,
        ],
        "back",
        "close, clear the filter, or go back",
    ),
    changing(
        1,
        row(A::Test, "target.test", &[Char('t')], &[C::Certificate], "test", "try a deployment, and change nothing"),
    ),
    changing(
        1,
        row(A::Challenges, "challenges", &[Char('C')], &[C::Certificate], "", "look at its challenges as a CA would"),
    ),
    row(A::Back, "cancel", &[Esc], &[C::Form, C::Prompt, C::Dialog], "cancel", "close without doing anything"),
    offered(row(A::Palette, "palette", &[Char(':')], PLACES, "command", "command line: places and actions")),
    row(A::MoveDown, "move.down", &[Char('j'), Down], LISTS, "", "one row down"),
    row(A::MoveUp, "move.up", &[Char('k'), Up], LISTS, "", "one row up"),
    row(A::PageDown, "move.page-down", &[PageDown, Ctrl('d')], LISTS, "", "one page down"),
    row(A::PageDown, "move.page-down-by-space", &[Char(' ')], UNMARKED, "", "one page down"),
    row(A::PageUp, "move.page-up", &[PageUp, Ctrl('u'), Char('b')], LISTS, "", "one page up"),
    row(A::Top, "move.top", &[Home, Char('<')], LISTS, "", "first row (also gg)"),
    row(A::Bottom, "move.bottom", &[Char('G'), End], LISTS, "", "last row"),
    row(
        A::NextProblem,
        "move.next-problem",
        &[Char('.')],
        &[C::Certificates, C::Agents, C::Jobs, C::Job, C::Issuers, C::Audit, C::IdentityCa],
        "",
        "next row that needs someone",
    ),
    row(
        A::PrevProblem,
        "move.prev-problem",
        &[Char(',')],
        &[C::Certificates, C::Agents, C::Jobs, C::Job, C::Issuers, C::Audit, C::IdentityCa],
        "",
        "previous row that needs someone",
    ),
    offered(row(A::GoOverview, "go.overview", &[Char('1')], PLACES, "", "Overview")),
    offered(row(A::GoCertificates, "go.certificates", &[Char('2')], PLACES, "", "Certificates")),
    offered(row(A::GoAgents, "go.agents", &[Char('3')], PLACES, "", "Agents")),
    offered(row(A::GoJobs, "go.jobs", &[Char('4')], PLACES, "", "Jobs")),
    offered(row(A::GoIssuers, "go.issuers", &[Char('0')], PLACES, "", "Issuers")),
    offered(row(A::GoAudit, "go.audit", &[Char('8')], PLACES, "", "Audit")),
    offered(row(A::GoTeam, "go.team", &[Char('9')], PLACES, "", "Team")),
    offered(row(A::GoRestore, "go.restore", &[Char('A')], &[C::Overview], "", "Restore: accept it")),
    offered(row(
        A::GoIdentityCa,
        "go.identity-ca",
        &[Char('I')],
        &[C::Agents, C::Agent],
        "CA",
        "Identity CA: rotate it",
    )),
    row(A::GoMenu, "go", &[Char('g')], PLACES, "", "go to …"),
    row(A::GoLast, "go.last", &[Char('-')], PLACES, "", "last place and back"),
    offered(row(A::Refresh, "refresh", &[Char('R')], PLACES, "", "read and sort again; retry when offline")),
    offered(row(A::Messages, "messages", &[Char('M')], PLACES, "", "messages of this session")),
    offered(row(A::Quit, "quit", &[Char('Q')], PLACES, "quit", "leave the dashboard")),
    row(A::Interrupt, "interrupt", &[Ctrl('c')], EVERYWHERE, "", "cancel the input; twice quits"),
    offered(row(A::Redraw, "redraw", &[Ctrl('l')], EVERYWHERE, "", "paint everything again")),
    offered(row(A::Suspend, "suspend", &[Ctrl('z')], EVERYWHERE, "", "stop; the shell's fg continues")),
    row(A::Help, "help", &[Char('?'), F(1)], PLACES, "help", "these keys"),
    row(A::Help, "help.form", &[F(1)], &[C::Form], "", "these keys (F1, or :help elsewhere)"),
];

/// Second keys after `g`.
pub(crate) const GO: &[(char, Action, &str)] = &[
    ('g', A::Top, "top"),
    ('o', A::GoOverview, "Overview"),
    ('c', A::GoCertificates, "Certs"),
    ('a', A::GoAgents, "Agents"),
    ('j', A::GoJobs, "Jobs"),
    ('i', A::GoIssuers, "Issuers"),
    ('u', A::GoAudit, "Audit"),
    ('t', A::GoTeam, "Team"),
    ('r', A::GoRestore, "Restore"),
    ('k', A::GoIdentityCa, "Identity CA"),
];

/// Returns what `key` does in `context`.
pub(crate) fn action(context: Context, key: Key) -> Option<Action> {
    TABLE.iter().find(|row| row.contexts.contains(&context) && row.keys.contains(&key)).map(|row| row.action)
}

/// Returns the row for an action in a context.
pub(crate) fn binding(context: Context, action: Action) -> Option<&'static Binding> {
    TABLE.iter().find(|row| row.action == action && row.contexts.contains(&context))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_key_means_two_things_in_one_context() {
        for context in Context::ALL {
            let mut seen = HashSet::new();
            for row in TABLE.iter().filter(|row| row.contexts.contains(&context)) {
                for key in row.keys {
                    assert!(seen.insert(*key), "{key:?} twice in {context:?}, second time for {}", row.id);
                }
            }
        }
    }

    #[test]
    fn every_action_has_a_plain_key_or_stands_in_the_palette() {
        for row in TABLE {
            let plain = row.keys.iter().any(|key| !matches!(key, Ctrl(_) | F(_) | Char('[' | ']')));
            let twin = TABLE.iter().any(|other| other.action == row.action && other.id != row.id);
            let quit = row.action == Action::Interrupt;
            assert!(plain || row.palette || twin || quit, "{}", row.id);
        }
    }

    #[test]
    fn destructive_keys_are_capitals_and_reading_keys_come_without_danger() {
        for row in TABLE.iter().filter(|row| row.danger >= 2) {
            assert!(row.keys.iter().all(|key| matches!(key, Char(ch) if ch.is_ascii_uppercase())), "{}", row.id);
        }
    }

    #[test]
    fn help_fits_and_names_are_unique() {
        let mut ids = HashSet::new();
        for row in TABLE {
            assert!(row.help.chars().count() <= 40, "{}", row.id);
            assert!(!row.help.is_empty() && !row.keys.is_empty() && ids.insert(row.id), "{}", row.id);
        }
    }

    #[test]
    fn keys_that_others_take_are_never_bound() {
        let taken = ['b', 'a', 's', 'q', 'p', 'w', 't', 'n', 'h', 'i', 'm', 'j', '['];
        for key in TABLE.iter().flat_map(|row| row.keys) {
            assert!(!matches!(key, Ctrl(ch) if taken.contains(ch)), "{key:?}");
            assert_ne!(*key, Char('~'));
        }
    }
}
