//! `audit`: who did what, taken away as a file, and checked against what agents kept of it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use proto::audit::{Chain, Head, Line, RESTORE};
use proto::clock::to_wire;
use proto::operator::v1::{AuditWitness, ListAuditRequest};
use proto::x509::unhex;
use serde::Deserialize;

use super::save::save;
use super::session::{Session, invalid};
use crate::client::{ClientError, ErrorKind, fold_audit, parse_instant};
use crate::output::{audit, safe};

/// Lines asked for at once.
const PAGE_SIZE: u32 = 1_000;
/// Larger files of a witness are none.
const WITNESS_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists acts, newest first
    Ls {
        #[command(flatten)]
        which: Which,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Writes lines, oldest first, for keeping elsewhere
    Export {
        /// jsonl keeps the chain: `audit verify --file` checks it
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Form::Jsonl)]
        format: Form,
        #[command(flatten)]
        which: Which,
        /// File to write; standard output when absent
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Checks the chain here, line by line, and that it is the one that agents saw
    Verify {
        /// An export as jsonl, instead of the controller's own
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// What an agent kept: the output of `certwright-agent status -o json` on its host (repeats)
        #[arg(long, value_name = "FILE")]
        witness: Vec<PathBuf>,
    },
}

/// Which lines.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// From this instant on: 2026-11-21 or 2026-11-21T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_instant)]
    start: Option<Timestamp>,
    /// Before this instant
    #[arg(long, value_name = "TIME", value_parser = parse_instant)]
    end: Option<Timestamp>,
    /// Only those whose actor or subject contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// One JSON object a line, as they are chained
    Jsonl,
    /// For spreadsheets; what could be taken for a formula is defused
    Csv,
    /// For paper
    Pdf,
}

impl Which {
    fn request(&self) -> ListAuditRequest {
        ListAuditRequest {
            start_at: to_wire(self.start),
            end_at: to_wire(self.end),
            name: self.name.clone(),
            page_size: PAGE_SIZE,
            ..Default::default()
        }
    }
}

pub(super) async fn run(verb: Verb, session: &mut Session<'_>) -> Result<(), ClientError> {
    match verb {
        Verb::Ls { which, limit } => ls(&which, limit, session).await,
        Verb::Export { format, which, out } => export(format, &which, out.as_deref(), session).await,
        Verb::Verify { file: Some(file), witness } => {
            let text = read(&file)?;
            let mut check = Check::new(&witness)?;
            text.lines().try_for_each(|line| check.follow(line))?;
            check.end(None, &[], session)
        }
        Verb::Verify { file: None, witness } => verify(&witness, session).await,
    }
}

async fn ls(which: &Which, limit: usize, session: &mut Session<'_>) -> Result<(), ClientError> {
    let mut request = which.request();
    let mut lines: Vec<Line> = Vec::new();
    loop {
        let page = session.client.list_audit(request.clone()).await?;
        lines.extend(page.lines.iter().filter_map(|line| serde_json::from_str(line).ok()));
        request.from_seq = page.next_seq;
        if page.next_seq == 0 || lines.iter().filter(|line| line.answers.is_none()).count() >= limit {
            break;
        }
    }
    let mut acts = fold_audit(lines);
    acts.truncate(limit);
    session.list(
        || acts.iter().map(|act| act.line.seq.to_string()).collect(),
        || audit::json_list(&acts),
        |now, wide| audit::table(&acts, now, wide),
    )
}

async fn export(form: Form, which: &Which, out: Option<&Path>, session: &mut Session<'_>) -> Result<(), ClientError> {
    let mut request = ListAuditRequest { ascending: true, export: true, ..which.request() };
    let mut lines = Vec::new();
    loop {
        let page = session.client.list_audit(request.clone()).await?;
        lines.extend(page.lines);
        request.from_seq = page.next_seq;
        if page.next_seq == 0 {
            break;
        }
    }
    let count = lines.len();
    let bytes = match form {
        Form::Jsonl => lines.iter().flat_map(|line| [line.as_bytes(), b"\n"]).flatten().copied().collect(),
        Form::Csv => audit::csv(&lines)?,
        Form::Pdf => audit::pdf(&lines, session.now()),
    };
    match out {
        None if form == Form::Pdf && session.console.width.is_some() => {
            Err(invalid("a PDF is not for the terminal", "name a file: --out audit.pdf"))
        }
        None => session.console.print_bytes(&bytes),
        Some(path) => {
            save(path, 0o600, &bytes)?;
            session.console.note(&format!("{count} lines written to {}", safe(&path.display().to_string())));
            Ok(())
        }
    }
}

async fn verify(witness: &[PathBuf], session: &mut Session<'_>) -> Result<(), ClientError> {
    let mut check = Check::new(witness)?;
    let mut request = ListAuditRequest { ascending: true, page_size: PAGE_SIZE, ..Default::default() };
    loop {
        let page = session.client.list_audit(request.clone()).await?;
        page.lines.iter().try_for_each(|line| check.follow(line))?;
        let head = page.head.map(Head::from);
        let last = check.chain.end().map_or(0, |(seq, _)| seq);
        // What came while this check was on its way is asked for too.
        let is_behind = head.as_ref().is_some_and(|head| head.seq > last) && !page.lines.is_empty();
        match page.next_seq {
            0 if is_behind => request.from_seq = last,
            0 => {
                let head = head.as_ref().map(|head| (head, page.public_key.as_slice()));
                return check.end(head, &page.witnesses, session);
            }
            next => request.from_seq = next,
        }
    }
}

/// What an agent's status holds of the audit.
#[derive(Deserialize)]
struct Witness {
    name: String,
    witness: Kept,
}

#[derive(Deserialize)]
struct Kept {
    key: String,
    heads: Vec<Head>,
}

/// A check on its way along the chain.
struct Check {
    chain: Chain,
    first: Option<u64>,
    count: u64,
    witnesses: Vec<Witness>,
    compared: u64,
    /// Of lines that a restore lost.
    lost: u64,
    /// Of the last restore on the way.
    epoch: u64,
}

impl Check {
    fn new(files: &[PathBuf]) -> Result<Self, ClientError> {
        let witnesses = files.iter().map(|file| witness(file)).collect::<Result<_, _>>()?;
        Ok(Self { chain: Chain::default(), first: None, count: 0, witnesses, compared: 0, lost: 0, epoch: 1 })
    }

    fn follow(&mut self, text: &str) -> Result<(), ClientError> {
        let line = self.chain.follow(text).map_err(|error| broken(&error.to_string(), "the chain is broken there"))?;
        self.first.get_or_insert(line.seq);
        self.count += 1;
        if line.act == RESTORE {
            let words = line.detail.split_whitespace().filter_map(|word| word.strip_prefix("epoch="));
            self.epoch = words.filter_map(|epoch| epoch.parse().ok()).fold(self.epoch, u64::max);
        }
        let Some((_, hash)) = self.chain.end() else { return Ok(()) };
        for witness in &self.witnesses {
            for head in witness.witness.heads.iter().filter(|head| head.seq == line.seq) {
                // What the agent saw under this number was written after the backup, and is gone.
                if head.epoch.max(1) < self.epoch {
                    self.lost += 1;
                    continue;
                }
                if head.hash != hash {
                    let why = format!("agent {} kept another line {}", safe(&witness.name), line.seq);
                    return Err(broken(&why, "the audit was rewritten after the agent saw it"));
                }
                self.compared += 1;
            }
        }
        Ok(())
    }

    fn end(
        mut self,
        head: Option<(&Head, &[u8])>,
        known: &[AuditWitness],
        session: &mut Session<'_>,
    ) -> Result<(), ClientError> {
        let Some((last, hash)) = self.chain.end() else {
            return session.console.print("the audit is empty\n");
        };
        let is_ours = |(head, key): (&Head, &[u8])| head.seq == last && head.hash == hash && head.is_signed_by(key);
        if head.is_some_and(|head| !is_ours(head)) {
            return Err(broken("the signed head is not of this chain", "the end of the audit was changed"));
        }
        for witness in &self.witnesses {
            let beyond = witness.witness.heads.iter().filter(|head| head.seq > last);
            let (lost, beyond): (Vec<&Head>, Vec<&Head>) = beyond.partition(|head| head.epoch.max(1) < self.epoch);
            self.lost += u64::try_from(lost.len()).unwrap_or_default();
            if let Some(beyond) = beyond.first() {
                let why =
                    format!("agent {} saw line {}, and the last one here is {last}", safe(&witness.name), beyond.seq);
                return Err(broken(&why, "the end of the audit was cut off, or an older database was restored"));
            }
        }
        if let Some(disagrees) = known.iter().find(|witness| !witness.agrees) {
            let why =
                format!("agent {} keeps another line {} than the controller", safe(&disagrees.agent), disagrees.seq);
            return Err(broken(&why, "the audit was rewritten, or an older database was restored"));
        }
        let first = self.first.unwrap_or(1);
        let mut text = format!("the chain holds: {} lines, {first} to {last}\n", self.count);
        if first > 1 {
            text.push_str(&format!("lines before {first} were removed when there were too many\n"));
        }
        if head.is_some() {
            text.push_str("the head is signed by the controller's audit key\n");
        }
        text.push_str(&format!("{} heads of {} witnesses agree\n", self.compared, self.witnesses.len()));
        if self.lost > 0 {
            let lost = self.lost;
            text.push_str(&format!(
                "{lost} heads are of lines that were written after a backup, and lost with its restore\n"
            ));
        }
        if self.witnesses.is_empty() {
            let told = known.len();
            text.push_str(&format!(
                "{told} agents told the controller that they agree; ask them yourself with --witness FILE\n"
            ));
        }
        session.console.print(&text)
    }
}

fn witness(path: &Path) -> Result<Witness, ClientError> {
    let text = read(path)?;
    let wrong = |why: &str| {
        let message = format!("{} is not what an agent keeps", path.display());
        let hint = "on the agent's host: certwright-agent status -o json --state DIR > FILE";
        ClientError::local(ErrorKind::Invalid, "WITNESS_UNREADABLE", &message, why, hint)
    };
    let found: Witness = serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
    let key = unhex(&found.witness.key).ok_or_else(|| wrong("its key is not hex"))?;
    if let Some(head) = found.witness.heads.iter().find(|head| !head.is_signed_by(&key)) {
        return Err(wrong(&format!("its head of line {} is not signed by the key beside it", head.seq)));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<String, ClientError> {
    let unreadable = |why: String| {
        let message = format!("cannot read {}", path.display());
        ClientError::local(ErrorKind::Invalid, "FILE_UNREADABLE", &message, &why, "check its name and its mode")
    };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > WITNESS_BYTES_MAX {
        return Err(unreadable("it is larger than 64 MiB".to_owned()));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

fn broken(what: &str, why: &str) -> ClientError {
    let hint = "keep the database and the agents' files as they are, and find out who could write there";
    ClientError::local(ErrorKind::Failed, "AUDIT_BROKEN", &format!("the audit is not intact: {what}"), why, hint)
}
