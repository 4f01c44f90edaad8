//! Runs the dashboard: brings keys, answers and timers to `app::update`, does what it asks, paints when the pacer allows.
//! It decides nothing about certificates. Called by the command line when it is started without a subcommand.

mod calls;
mod connection;
mod pacer;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use proto::clock::{Clock, SystemClock};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::app::{Cmd, Model, Msg, update};
use crate::client::{Client, Contexts};
use crate::run::pacer::{Pacer, Why};
use crate::terminal::{Input, Link, Profile, Reader, Terminal};
use crate::theme::Theme;
use crate::view::view;

/// Messages that wait for the loop; a task that finds it full waits.
const MESSAGES_MAX: usize = 256;
/// What the shell shows for a program whose terminal went away.
const HANG_UP_STATUS: u8 = 129;
/// A paint that is not due for now.
const NEVER: Duration = Duration::from_secs(86_400);

/// How the dashboard is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The connection to the controller.
    pub client: Client,
    /// Where a login from elsewhere is kept, so that it can be renewed.
    pub contexts: Option<Contexts>,
    /// The environment: `TERM`, `NO_COLOR`, the locale and `SSH_CONNECTION` say what the terminal can do;
    /// `CERTWRIGHT_ASCII` and `CERTWRIGHT_LINK=slow` overrule them. With `CERTWRIGHT_TEST_TITLE` the window title says
    /// `idle k=KEYS rev=REVISION` whenever everything is read and painted, so that tests need no sleeps.
    pub variables: BTreeMap<String, String>,
}

/// Shows the dashboard until the operator leaves it. The terminal is put back on every kind of end.
///
/// # Errors
/// When standard output is no terminal, or the terminal goes away.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let profile = Profile::from(|name| options.variables.get(name).cloned());
    let terminal = Terminal::enter().context("the dashboard needs a terminal on standard output")?;
    let mut dashboard = Dashboard::new(&options, profile, terminal);
    dashboard.run().await
}

/// The running dashboard.
struct Dashboard {
    clock: SystemClock,
    client: Client,
    contexts: Option<Contexts>,
    terminal: Terminal,
    model: Model,
    pacer: Pacer,
    dirty: Option<Why>,
    tasks: JoinSet<()>,
    to_loop: mpsc::Sender<Msg>,
    messages: mpsc::Receiver<Msg>,
    retry: Arc<Notify>,
    test_title: bool,
    title: String,
    quit: bool,
    suspend: bool,
    copies: Option<String>,
}

impl Dashboard {
    fn new(options: &Options, profile: Profile, terminal: Terminal) -> Self {
        let clock = SystemClock;
        let (to_loop, messages) = mpsc::channel(MESSAGES_MAX);
        let theme = Theme { color: profile.color, ascii: profile.ascii };
        let size = terminal.size();
        let model = Model::new(theme, (size.width, size.height), clock.now(), proto::id::random_id());
        Self {
            clock,
            client: options.client.clone(),
            contexts: options.contexts.clone(),
            terminal,
            model,
            pacer: Pacer::new(profile.link),
            dirty: Some(Why::Input),
            tasks: JoinSet::new(),
            to_loop,
            messages,
            retry: Arc::new(Notify::new()),
            test_title: options.variables.contains_key("CERTWRIGHT_TEST_TITLE"),
            title: String::new(),
            quit: false,
            suspend: false,
            copies: None,
        }
    }

    async fn run(&mut self) -> anyhow::Result<ExitCode> {
        let line = connection::Line { client: self.client.clone(), contexts: self.contexts.clone(), clock: self.clock };
        self.tasks.spawn(connection::keep(line, self.to_loop.clone(), Arc::clone(&self.retry)));
        let mut reader = Reader::new();
        self.paint()?;
        while !self.quit {
            let due = self.dirty.map_or(NEVER, |why| self.pacer.wait(why, Instant::now()));
            // Every arm is cancel-safe: the reader and the channel keep what was not taken, a finished task is nothing.
            tokio::select! {
                biased;
                input = reader.next() => match input {
                    Some(batch) => batch.into_iter().for_each(|input| self.input(input)),
                    None => return Ok(ExitCode::from(HANG_UP_STATUS)),
                },
                Some(message) = self.messages.recv() => self.update(message, Why::Data),
                Some(_) = self.tasks.join_next() => {}
                () = sleep_until(Instant::now() + due), if self.dirty.is_some() => {}
            }
            while let Ok(message) = self.messages.try_recv() {
                self.update(message, Why::Data);
            }
            if std::mem::take(&mut self.suspend) {
                // Another program reads the terminal now: crossterm's reader must not take its keys.
                drop(reader);
                self.terminal.suspend()?;
                reader = Reader::new();
                let size = self.terminal.size();
                self.update(Msg::Resize(size.width, size.height), Why::Input);
            }
            self.paint()?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn input(&mut self, input: Input) {
        let message = match input {
            Input::Key(key) => Msg::Key(key),
            Input::Paste(text) => Msg::Paste { text, bracketed: true },
            Input::Burst(text) => Msg::Paste { text, bracketed: false },
            Input::Resize(width, height) => {
                self.terminal.resize(width, height);
                Msg::Resize(width, height)
            }
            Input::Focus(_) => return,
        };
        self.update(message, Why::Input);
    }

    fn update(&mut self, message: Msg, why: Why) {
        update(&mut self.model, Msg::Now(self.clock.now())).into_iter().for_each(|cmd| self.perform(cmd));
        update(&mut self.model, message).into_iter().for_each(|cmd| self.perform(cmd));
        if self.dirty != Some(Why::Input) {
            self.dirty = Some(why);
        }
    }

    fn perform(&mut self, cmd: Cmd) {
        let to_loop = self.to_loop.clone();
        match cmd {
            Cmd::Call(id, call) => {
                let client = self.client.clone();
                self.tasks.spawn(async move {
                    let started = Instant::now();
                    let heard = to_loop.clone();
                    // A full loop hears of the next part.
                    let told = move |bytes| drop(heard.try_send(Msg::Progress { id, bytes }));
                    let result = Box::pin(calls::perform(&client, call, &told)).await;
                    let reply = Msg::Reply { id, took: started.elapsed(), result };
                    // A closed channel: the dashboard has ended, nobody waits.
                    drop(to_loop.send(reply).await);
                });
            }
            Cmd::After(timer, after) => {
                self.tasks.spawn(async move {
                    sleep(after).await;
                    drop(to_loop.send(Msg::Timer(timer)).await);
                });
            }
            Cmd::Reconnect => self.retry.notify_one(),
            Cmd::Repaint => self.terminal.repaint(),
            Cmd::Suspend => self.suspend = true,
            Cmd::Copy(text) => self.copies = Some(text),
            Cmd::Quit => self.quit = true,
        }
    }

    fn paint(&mut self) -> anyhow::Result<()> {
        if let Some(text) = self.copies.take() {
            self.terminal.copy(&text).context("the terminal went away")?;
        }
        let now = Instant::now();
        if let Some(why) = self.dirty
            && self.pacer.wait(why, now).is_zero()
        {
            let model = &self.model;
            let bytes = self.terminal.paint(|frame| view(model, frame)).context("the terminal went away")?;
            self.pacer.painted(why, bytes, now);
            self.dirty = None;
        }
        if self.test_title && self.dirty.is_none() && self.model.is_idle() {
            let title = format!("idle k={} rev={}", self.model.keys_handled, self.model.revision);
            if title != self.title {
                self.terminal.title(&title).context("the terminal went away")?;
                self.title = title;
            }
        }
        Ok(())
    }
}

impl From<Link> for pacer::Pace {
    fn from(link: Link) -> Self {
        match link {
            Link::Local => Self { gap: Duration::from_millis(100), rate: 64_000.0, overdraw: 64_000.0 },
            Link::Remote => Self { gap: Duration::from_millis(250), rate: 4_000.0, overdraw: 8_000.0 },
            Link::Slow => Self { gap: Duration::from_secs(1), rate: 2_000.0, overdraw: 4_000.0 },
        }
    }
}
