//! The add-certificate wizard: names, challenge, issuer and key, target, review. Nothing is sent before the review; there
//! the controller checks everything without changing anything, and its complaints stand at their fields.
//!
//! ```text
//!  Add certificate
//!  ✓1 Names   [2 Challenge]   ·3 Key & issuer   ·4 Target   ·5 Review
//! ┌───────────────────────────────────────────┐┌─ Summary (wide) ─┐
//! └───────────────────────────────────────────┘└──────────────────┘
//! ```

mod request;
mod suggested;

use proto::operator::v1::{Agent, CertificateAccepted, Issuer, TestTargetsRequest};
use proto::presets::{PRESETS, Preset};
use proto::types::v1::{FieldError, Problem};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::app::call::Call;
use crate::app::{Cmd, Model};
use crate::client::{ClientError, preset_spec};
use crate::keys::Key;
use crate::screens::sheet::certificate as sheet;
use crate::theme::{State, Theme};
use crate::view;
use crate::widgets::form::{Field, Form, Outcome, help_lines};
use crate::widgets::panel::{panel, put, put_all, put_right, rows as part, split_right};
use crate::widgets::text::{command_lines, safe, wrap};

/// Where most services show their certificate.
const VERIFY_DEFAULT: &str = "127.0.0.1:443";
const STEPS: [&str; 5] = ["Names", "Challenge", "Key & issuer", "Target", "Review"];
const REVIEW: usize = STEPS.len() - 1;
/// From this width on the summary stands beside the form.
const SUMMARY_MIN: u16 = 120;
const SUMMARY_WIDTH: u16 = 56;
/// Lines for the help below a form.
const HELP_HEIGHT: u16 = 3;

pub(super) const LISTEN: &str = "listen on a port";
pub(super) const WEBROOT: &str = "files in a web root";
pub(super) const NO_AGENT: &str = "(none yet)";
const OTHER_SERVICE: &str = "(another)";
pub(super) const AUTOMATIC: &str = "automatic";

/// What the controller said about the draft.
#[derive(Clone, Debug, Default)]
enum Check {
    /// Nothing was asked.
    #[default]
    None,
    /// Waiting for the answer.
    Asking,
    /// All is well; with warnings.
    Passed(Vec<String>),
    /// Something is wrong.
    Refused(Problem),
}

/// The draft.
#[derive(Clone, Debug)]
pub(crate) struct Wizard {
    step: usize,
    forms: Vec<Form>,
    agents: Vec<Agent>,
    issuers: Vec<Issuer>,
    issuers_read: bool,
    no_issuer: bool,
    check: Check,
    touched: bool,
    /// First line of the review that shows.
    scroll: usize,
    /// The directory that was proposed; it is replaced while the operator leaves it alone.
    proposed_dir: String,
    /// Likewise the files.
    proposed_files: String,
    /// Commands that are offered beside the policy's.
    suggested_commands: Vec<String>,
}

impl Wizard {
    /// Returns an empty draft.
    pub(crate) fn new() -> Self {
        let mut wizard = Self {
            step: 0,
            forms: vec![names_form(), challenge_form(), key_form(), target_form(), review_form()],
            agents: Vec::new(),
            issuers: Vec::new(),
            issuers_read: false,
            no_issuer: false,
            check: Check::None,
            touched: false,
            scroll: 0,
            proposed_dir: String::new(),
            proposed_files: request::FILES_DEFAULT.to_owned(),
            suggested_commands: Vec::new(),
        };
        wizard.follow();
        wizard
    }

    /// Shows the draft again, from its first step.
    pub(crate) fn resume(&mut self) {
        self.step = 0;
        self.check = Check::None;
    }

    /// Whether nothing was typed so far.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.touched
    }

    /// Goes one step back; false on the first step.
    pub(crate) fn step_back(&mut self) -> bool {
        let first = self.step == 0;
        self.step = self.step.saturating_sub(1);
        !first
    }

    /// Takes the issuers to choose from.
    pub(crate) fn offer_issuers(&mut self, issuers: &[Issuer]) {
        self.issuers_read = true;
        self.no_issuer = issuers.is_empty();
        let names = issuers.iter().map(|issuer| issuer.name.clone()).collect();
        self.form_of(2).offer("issuer", names);
        self.issuers = issuers.to_vec();
        self.follow();
    }

    /// Takes the agents to choose from.
    pub(crate) fn offer_agents(&mut self, agents: &[Agent]) {
        self.agents = agents.iter().filter(|agent| agent.status != "revoked").cloned().collect();
        let names: Vec<String> = self.agents.iter().map(|agent| agent.name.clone()).collect();
        self.form_of(1).offer("responders", names.clone());
        let choices = if names.is_empty() { vec![NO_AGENT.to_owned()] } else { names };
        let before = self.form(3).map_or("", |form| form.chosen("agent")).to_owned();
        let mut choices = choices;
        if !choices.iter().any(|choice| choice == NO_AGENT) {
            choices.push(NO_AGENT.to_owned());
        }
        // The only choice so far was "none yet", which nobody chose: the first agent is the better proposal.
        if before == NO_AGENT && !self.touched {
            self.form_of(3).offer("agent", Vec::new());
        }
        self.form_of(3).offer("agent", choices);
        self.follow();
    }

    fn form(&self, step: usize) -> Option<&Form> {
        self.forms.get(step)
    }

    fn form_of(&mut self, step: usize) -> &mut Form {
        let last = self.forms.len().saturating_sub(1);
        self.forms.get_mut(step.min(last)).expect("a wizard has its five forms from the start")
    }

    fn value(&self, step: usize, id: &str) -> &str {
        self.form(step).map_or("", |form| form.value(id))
    }

    fn chosen(&self, step: usize, id: &str) -> &str {
        self.form(step).map_or("", |form| form.chosen(id))
    }

    /// Whether our own CA is to sign: nobody has to answer for the names.
    pub(super) fn is_private(&self) -> bool {
        let name = self.chosen(2, "issuer");
        self.issuers.iter().any(|issuer| issuer.name == name && issuer.private_ca.is_some())
    }

    /// Returns the agent chosen as target.
    pub(super) fn target_agent(&self) -> Option<&Agent> {
        let name = self.chosen(3, "agent");
        self.agents.iter().find(|agent| agent.name == name)
    }

    /// Makes the fields that depend on others follow them.
    fn follow(&mut self) {
        let issuers = std::mem::take(&mut self.issuers);
        sheet::offer_profiles(self.form_of(2), &issuers);
        self.issuers = issuers;
        let help = if self.is_private() { PRIVATE_ISSUER } else { ISSUER };
        if let Some(field) = self.form_of(2).field_mut("issuer") {
            help.clone_into(&mut field.help);
        }
        let webroot = self.chosen(1, "http01") == WEBROOT;
        self.form_of(1).show("http01_port", !webroot);
        self.form_of(1).show("http01_webroot", webroot);
        let agent = self.target_agent().cloned();
        let policy = agent.as_ref().and_then(|agent| agent.policy.clone()).unwrap_or_default();
        let service = self.service().filter(|_| agent.is_some());
        let mut commands: Vec<String> = policy.commands.iter().map(|one| request::joined(&one.argv)).collect();
        let lines = service.map(|service| [validate_line(service), Some(reload_line(service, &commands))]);
        for line in lines.into_iter().flatten().flatten().chain(self.suggested_commands.clone()) {
            if !commands.contains(&line) {
                commands.push(line);
            }
        }
        let dirs: Vec<&str> = policy.dirs.iter().map(|dir| dir.path.as_str()).collect();
        let name = self.name();
        let (proposed, files) = match service {
            Some(service) => (service.dir_of(&name), request::files_of(service, &name)),
            None => {
                let dir = dirs.first().map(|dir| format!("{}/{name}", dir.trim_end_matches('/')));
                (dir.unwrap_or_default(), request::FILES_DEFAULT.to_owned())
            }
        };
        let files_untouched = self.value(3, "files") == self.proposed_files;
        let untouched = self.value(3, "dir") == self.proposed_dir;
        let help = if dirs.is_empty() {
            "Where the files go. The agent's policy must allow it.".to_owned()
        } else {
            format!("Where the files go. The agent's policy allows: {}", dirs.join(", "))
        };
        let shown = agent.is_some();
        let form = self.form_of(3);
        form.offer("validate", commands.clone());
        form.offer("reload", commands);
        for id in ["service", "dir", "files", "owner", "mode", "key_mode", "validate", "reload", "verify", "drift"] {
            form.show(id, shown);
        }
        if untouched {
            form.set("dir", &proposed);
        }
        if let Some(field) = form.field_mut("dir") {
            field.help = help;
        }
        if files_untouched {
            form.set("files", &files);
            self.proposed_files = files;
        }
        if untouched {
            self.proposed_dir = proposed;
        }
    }

    /// Returns the service that uses the certificate.
    pub(super) fn service(&self) -> Option<&'static Preset> {
        let label = self.chosen(3, "service");
        PRESETS.iter().find(|preset| preset.label == label)
    }

    /// Fills the target's fields for the service that was just chosen; they can be edited from there.
    fn fill(&mut self) {
        // Whatever stands there gives way to the new choice.
        (self.proposed_dir, self.proposed_files) = (self.value(3, "dir").to_owned(), self.value(3, "files").to_owned());
        self.follow();
        let service = self.service();
        let spec = service.map(|service| preset_spec(service, &self.name()));
        let verify = match &spec {
            Some(spec) => spec.verify.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            None => VERIFY_DEFAULT.to_owned(),
        };
        let offered = self.form(3).map(|form| form.offered("reload")).unwrap_or_default();
        let reload: Vec<String> = service.map(|service| reload_line(service, &offered)).into_iter().collect();
        let validate: Vec<String> = service.and_then(validate_line).into_iter().collect();
        let form = self.form_of(3);
        form.set("owner", service.map_or("", |service| service.owner));
        form.set("mode", "0644");
        form.set("key_mode", &format!("{:04o}", service.map_or(0o600, |service| service.key_mode)));
        form.set("verify", &verify);
        form.pick("validate", &validate);
        form.pick("reload", &reload);
    }

    /// Returns the certificate's name: as typed, else its first identifier.
    pub(super) fn name(&self) -> String {
        let typed = self.value(0, "name");
        if typed.is_empty() {
            request::identifiers(self.value(0, "identifiers"))
                .first()
                .map_or_else(String::new, |first| first.trim_start_matches("*.").to_owned())
        } else {
            typed.to_owned()
        }
    }

    /// Takes what the controller said about the draft; its complaints go to their fields.
    pub(crate) fn checked(&mut self, answer: Result<CertificateAccepted, ClientError>) {
        match answer {
            Ok(accepted) => self.check = Check::Passed(accepted.warnings),
            Err(error) => {
                let mut problem = error.problem;
                for field in &error.fields {
                    if !self.blame(field) {
                        problem.cause =
                            format!("{} {}: {}", problem.cause, field.field, field.message).trim().to_owned();
                    }
                }
                self.check = Check::Refused(problem);
                if let Some(step) = self.forms.iter().position(Form::has_problems) {
                    self.step = step;
                    self.form_of(step).focus_problem();
                }
            }
        }
    }

    fn blame(&mut self, field: &FieldError) -> bool {
        let (step, id) = request::place_of(&field.field);
        let id =
            if self.form(step).is_some_and(|form| id == "profile" && form.is_hidden(id)) { "profile_text" } else { id };
        self.forms.get_mut(step).is_some_and(|form| form.blame(id, &field.message, &field.hint))
    }

    /// Checks what can be checked here; false when something is wrong.
    fn check_step(&mut self) -> bool {
        let complaints = request::complaints(self, self.step);
        let step = self.step;
        let form = self.form_of(step);
        form.absolve();
        for complaint in complaints {
            form.blame(&complaint.field, &complaint.message, &complaint.hint);
        }
        form.focus_problem();
        !form.has_problems()
    }
}

fn line(argv: &[&str]) -> String {
    request::joined(&argv.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
}

/// The test of a service's configuration, where it has one.
fn validate_line(service: &Preset) -> Option<String> {
    Some(service.validate).filter(|argv| !argv.is_empty()).map(line)
}

/// The reload of a service: through systemd, or by itself where only that is on offer.
fn reload_line(service: &Preset, offered: &[String]) -> String {
    let (usual, alone) = (line(service.reload), line(service.reload_alone));
    if !offered.contains(&usual) && offered.contains(&alone) { alone } else { usual }
}

const ISSUER: &str = "Who signs. More are added under 0, with n.";
const PRIVATE_ISSUER: &str = "A private CA of this controller signs at once: nothing is proven by HTTP-01.";

fn names_form() -> Form {
    Form::new(vec![
        Field::text(
            "identifiers",
            "Names",
            "",
            "DNS names, separated by spaces or commas; paste as many as you like. HTTP-01 cannot prove wildcards.",
        ),
        Field::text("name", "Called", "", "What you call the certificate. Empty: its first name."),
        Field::button("next", "Continue"),
    ])
}

fn challenge_form() -> Form {
    let ways = vec![LISTEN.to_owned(), WEBROOT.to_owned()];
    Form::new(vec![
        Field::choice(
            "http01",
            "HTTP-01",
            ways,
            "How the agent answers the CA on port 80. A port is opened only while a challenge is pending.",
        ),
        Field::text(
            "http01_port",
            "Port",
            "80",
            "The CA always asks on port 80; another port here needs a redirection to it.",
        ),
        Field::text(
            "http01_webroot",
            "Web root",
            "",
            "The directory that a web server already serves on port 80, for example /var/www/html.",
        ),
        Field::many(
            "responders",
            "Answered by",
            Vec::new(),
            "The agents that answer. None chosen: the target's agent.",
        ),
        Field::button("next", "Continue"),
    ])
}

fn key_form() -> Form {
    let keys = sheet::KEY_TYPES.map(str::to_owned).to_vec();
    let places = [AUTOMATIC, "agent", "controller"].map(str::to_owned).to_vec();
    let [profile, profile_text] = sheet::profile_fields("");
    Form::new(vec![
        Field::choice("issuer", "Issuer", Vec::new(), ISSUER),
        profile,
        profile_text,
        Field::choice("key_type", "Key", keys, "ECDSA P-256 is right unless something old must connect."),
        sheet::reuse_field(false),
        Field::choice(
            "custody",
            "Key kept by",
            places,
            "Automatic: by the agent when there is one target, so that the key never leaves that server.",
        ),
        sheet::fallbacks_field(&[]),
        Field::button("next", "Continue"),
    ])
}

fn target_form() -> Form {
    let services = std::iter::once(OTHER_SERVICE).chain(PRESETS.iter().map(|preset| preset.label)).map(str::to_owned);
    Form::new(vec![
        Field::choice(
            "agent",
            "Agent",
            vec![NO_AGENT.to_owned()],
            "The server that gets the files. More targets later: certwright targets add CERT.",
        ),
        Field::choice(
            "service",
            "Service",
            services.collect(),
            "What uses the certificate. A choice fills in the fields below; they stay yours to change.",
        ),
        Field::text("dir", "Directory", "", ""),
        Field::text(
            "files",
            "File names",
            request::FILES_DEFAULT,
            "What is written under which name; leave out what you do not need. combined= is leaf, chain and key in one.",
        ),
        Field::text("owner", "Owner", "", "user:group of the files. Empty: the agent's own user."),
        Field::text("mode", "Mode", "0644", "Permission bits of the certificate files."),
        Field::text("key_mode", "Key mode", "0600", "Permission bits of the file that holds the key."),
        Field::many(
            "validate",
            "Validate",
            Vec::new(),
            "Commands that must succeed before anything is reloaded, such as nginx -t. One that fails brings the old files back.",
        ),
        Field::many(
            "reload",
            "Reload",
            Vec::new(),
            "Commands the agent's policy allows, run in this order after the files are in place.",
        ),
        Field::text(
            "verify",
            "Verify",
            VERIFY_DEFAULT,
            "ADDR:PORT[/SNI] where a TLS handshake must show the new certificate, smtp:// (imap, pop3, xmpp, ldap, postgres) \
             before it for STARTTLS. Without it nothing is proven.",
        ),
        Field::choice(
            "drift",
            "Drift",
            vec!["repair".to_owned(), "show".to_owned()],
            "Files that are changed or removed on the server: written again by the agent, and what stood there is kept; or only shown.",
        ),
        Field::button("next", "Continue"),
    ])
}

fn review_form() -> Form {
    Form::new(vec![Field::button("create", "Create")])
}

/// Handles a key; `None` when it is not for the form.
pub(crate) fn key(model: &mut Model, key: Key) -> Option<Vec<Cmd>> {
    let height = view::body_height(model);
    let wizard = model.wizard.as_mut()?;
    let step = wizard.step;
    if step == REVIEW && wizard.scroll_review(key, height) {
        return Some(Vec::new());
    }
    if step == REVIEW && key == Key::Char('t') {
        return Some(test(model));
    }
    match wizard.form_of(step).key(key) {
        Outcome::Ignored => None,
        Outcome::Moved => Some(Vec::new()),
        Outcome::Changed(field) => {
            if field == "service" {
                wizard.fill();
            }
            wizard.changed();
            Some(Vec::new())
        }
        Outcome::Submit => Some(advance(model)),
    }
}

/// Puts text into the form; `None` when its field takes none.
pub(crate) fn insert(model: &mut Model, text: &str) -> Option<Vec<Cmd>> {
    let wizard = model.wizard.as_mut()?;
    let step = wizard.step;
    wizard.form_of(step).insert(text)?;
    wizard.changed();
    Some(Vec::new())
}

impl Wizard {
    /// Scrolls the review; false when the key is for its button.
    fn scroll_review(&mut self, key: Key, height: u16) -> bool {
        let page = usize::from(height / 2);
        self.scroll = match key {
            Key::Down | Key::Char('j') => self.scroll + 1,
            Key::Up | Key::Char('k') => self.scroll.saturating_sub(1),
            Key::PageDown => self.scroll + page,
            Key::PageUp => self.scroll.saturating_sub(page),
            _ => return false,
        };
        // As many lines as the widest request has at most; painting stops at the last one.
        self.scroll = self.scroll.min(self.lines_max());
        true
    }

    fn lines_max(&self) -> usize {
        request::command_line(self).len() / 10 + 40
    }

    /// Whether the controller accepted the draft, and it has a target.
    fn can_be_tested(&self) -> bool {
        let agent = self.form(3).map_or("", |form| form.chosen("agent"));
        matches!(self.check, Check::Passed(_)) && !agent.is_empty() && agent != NO_AGENT
    }

    fn changed(&mut self) {
        self.touched = true;
        self.check = Check::None;
        self.follow();
    }
}

fn advance(model: &mut Model) -> Vec<Cmd> {
    let Some(mut wizard) = model.wizard.take() else { return Vec::new() };
    let mut cmds = Vec::new();
    if wizard.step < REVIEW {
        if wizard.check_step() {
            wizard.step += 1;
            wizard.touched = true;
            wizard.scroll = 0;
            if wizard.step == REVIEW {
                cmds = ask(model, &mut wizard, true);
            }
        }
    } else if matches!(wizard.check, Check::Passed(_)) {
        cmds = ask(model, &mut wizard, false);
    } else if !matches!(wizard.check, Check::Asking) {
        cmds = ask(model, &mut wizard, true);
    }
    model.wizard = Some(wizard);
    cmds
}

fn ask(model: &mut Model, wizard: &mut Wizard, dry_run: bool) -> Vec<Cmd> {
    if let Some(why) = model.read_only() {
        model.notices.say(model.now, State::Warn, format!("not now: {why}; the draft is kept"));
        return Vec::new();
    }
    wizard.check = Check::Asking;
    let id = model.wish_id();
    let request = request::request(wizard, id, dry_run);
    vec![model.call(Call::Create(Box::new(request)))]
}

/// Has the target's agent test what would be created; nothing is created by it.
fn test(model: &mut Model) -> Vec<Cmd> {
    let Some(wizard) = model.wizard.take() else { return Vec::new() };
    let id = model.wish_id();
    let request = request::request(&wizard, id, true);
    let can = wizard.can_be_tested();
    model.wizard = Some(wizard);
    let Some(agent) = request.target.as_ref().map(|target| target.agent.clone()).filter(|_| can) else {
        return Vec::new();
    };
    model.notices.say(model.now, State::Busy, format!("testing it on {agent} … nothing is changed"));
    vec![model.call(Call::TestTargets(Box::new(TestTargetsRequest { create: Some(request), ..Default::default() })))]
}

/// Paints the wizard.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let wizard = model.wizard.as_ref()?;
    let theme = model.theme;
    let mut spans = vec![Span::styled(" Add certificate", theme.strong())];
    spans.extend(view::read_only_mark(model));
    put(buf, area, 0, &Line::from(spans));
    put(buf, area, 1, &steps_line(wizard, theme, area.width));
    let body = part(area, 2, u16::MAX);
    let (left, right) = if area.width >= SUMMARY_MIN && wizard.step < REVIEW {
        split_right(body, SUMMARY_WIDTH)
    } else {
        (body, Rect { width: 0, ..body })
    };
    if right.width > 0 {
        let inner = panel(buf, right, theme, "Summary so far", "");
        let lines = request::summary(wizard).into_iter().flat_map(|line| wrap(&line, usize::from(inner.width)));
        put_all(buf, inner, lines.map(Line::from));
    }
    let title = STEPS.get(wizard.step).copied().unwrap_or("");
    let inner = panel(buf, left, theme, title, "");
    if wizard.step == REVIEW { review(wizard, inner, buf, theme) } else { fields(wizard, inner, buf, theme) }
}

fn steps_line(wizard: &Wizard, theme: Theme, width: u16) -> Line<'static> {
    let gap = if width < 70 { " " } else { "   " };
    let mut spans = vec![Span::raw(" ")];
    for (index, name) in STEPS.iter().enumerate() {
        let broken = wizard.form(index).is_some_and(Form::has_problems);
        let state = if broken {
            State::Bad
        } else if index < wizard.step {
            State::Ok
        } else {
            State::Idle
        };
        let number = index + 1;
        if index == wizard.step {
            spans.push(Span::styled(format!("[{number} {name}]"), theme.strong()));
        } else {
            spans.push(Span::styled(theme.glyph(state), theme.state(state)));
            spans.push(Span::raw(format!("{number} {name}")));
        }
        spans.push(Span::raw(gap));
    }
    Line::from(spans)
}

fn fields(wizard: &Wizard, area: Rect, buf: &mut Buffer, theme: Theme) -> Option<Position> {
    let form = wizard.form(wizard.step)?;
    let help = help_lines(form.help(), area.width, theme);
    let below = u16::try_from(help.len()).unwrap_or(HELP_HEIGHT).min(HELP_HEIGHT).min(area.height / 2);
    put_all(buf, part(area, area.height.saturating_sub(below), below), help);
    let upper = part(area, 0, area.height.saturating_sub(below));
    let cursor = form.view(buf, upper, theme);
    if wizard.step == 2 && wizard.issuers_read && wizard.no_issuer {
        let text = "! No issuer yet. Esc keeps this draft; then 0 and n add one.";
        let lines = wrap(text, usize::from(area.width));
        put_all(
            buf,
            part(upper, 8, u16::MAX),
            lines.into_iter().map(|line| Line::styled(line, theme.state(State::Warn))),
        );
    }
    if wizard.step == 3 && wizard.agents.is_empty() {
        let text = "! No agent yet. The certificate can be created without a target; 3 then n enrols an agent.";
        let lines = wrap(text, usize::from(area.width));
        put_all(
            buf,
            part(upper, 4, u16::MAX),
            lines.into_iter().map(|line| Line::styled(line, theme.state(State::Warn))),
        );
    }
    cursor
}

fn review(wizard: &Wizard, area: Rect, buf: &mut Buffer, theme: Theme) -> Option<Position> {
    let width = usize::from(area.width);
    let verdict = verdict_lines(wizard, theme, width);
    let below = u16::try_from(verdict.len() + 1).unwrap_or(u16::MAX).min(area.height);
    let room = area.height.saturating_sub(below);
    let lines = review_lines(wizard, theme, width);
    let hidden = lines.len().saturating_sub(usize::from(room));
    put_all(buf, part(area, 0, room), lines.into_iter().skip(wizard.scroll.min(hidden)));
    let rest = part(area, room, below);
    put_all(buf, rest, verdict);
    let button = part(rest, rest.height.saturating_sub(1), 1);
    if wizard.scroll < hidden {
        put_right(buf, button, 0, &Line::styled(format!("{} more lines: Down ", hidden - wizard.scroll), theme.dim()));
    }
    wizard.form(REVIEW).and_then(|form| form.view(buf, button, theme))
}

fn review_lines(wizard: &Wizard, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    let command = request::command_line(wizard);
    lines.extend(request::review(wizard).into_iter().flat_map(|line| wrap(&line, width)).map(Line::from));
    let files = request::file_lines(wizard);
    if let Some((place, names)) = files.split_first() {
        lines.push(Line::styled(format!("Files that will be written {}", safe(place)), theme.strong()));
        let names = names.iter().flat_map(|line| wrap(line, width.saturating_sub(2)));
        lines.extend(names.map(|line| Line::from(format!("  {line}"))));
    }
    lines.push(Line::styled("The same on the command line", theme.strong()));
    let command = command_lines(&command, width.saturating_sub(2));
    lines.extend(command.into_iter().map(|line| Line::styled(format!("  {line}"), theme.accent())));
    lines
}

fn verdict_lines(wizard: &Wizard, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let (state, texts) = match &wizard.check {
        Check::None => (State::Idle, vec!["Enter lets the controller check it".to_owned()]),
        Check::Asking => (State::Busy, vec!["the controller checks it …".to_owned()]),
        Check::Passed(warnings) => {
            let first = if warnings.is_empty() {
                "the controller finds nothing wrong; Enter creates it"
            } else {
                "Enter creates it all the same"
            };
            let test = if wizard.can_be_tested() { "; t tests it first" } else { "" };
            (
                State::Ok,
                std::iter::once(format!("{first}{test}"))
                    .chain(warnings.iter().map(|warning| format!("! {warning}")))
                    .collect(),
            )
        }
        Check::Refused(problem) => (
            State::Bad,
            vec![
                problem.message.clone(),
                problem.cause.clone(),
                problem.hint.clone(),
                "Esc goes back to the fields".to_owned(),
            ],
        ),
    };
    let mut lines = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let glyph = if lines.is_empty() { theme.glyph(state) } else { " " };
        let style = if lines.is_empty() { theme.state(state) } else { ratatui::style::Style::new() };
        for (index, part) in wrap(text, width.saturating_sub(3)).into_iter().enumerate() {
            let glyph = if index == 0 { glyph } else { " " };
            lines.push(Line::from(vec![Span::styled(format!("{glyph} "), style), Span::styled(part, style)]));
        }
    }
    lines
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> (String, String) {
    let step = model.wizard.as_ref().map_or(0, |wizard| wizard.step);
    ("The draft is kept if you leave: n brings it back".to_owned(), format!("step {} of {}", step + 1, STEPS.len()))
}
