//! A store of very many certificates: fills a state directory through the store's own commits, then measures what an idle
//! controller costs there. `million [COUNT] [--state DIR]`; a directory that is already filled is used again. Prints its part
//! of docs/performance.md. Started by `scripts/bench million`, which builds for release.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is the document")]
#![allow(clippy::as_conversions, reason = "figures for people need no exact conversion")]

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use controller::lifecycle::certificate::{Certificate, CurrentVersion, Custody, KeySlot, KeyType, Version, Wanted};
use controller::lifecycle::renewal_info::{RenewalInfo, Window};
use controller::store::Store;
use controller::store::due::INDEXES;
use controller::store::engine::{Backend, Order};
use controller::store::master_key::MasterKey;
use controller::store::records::{Changes, Record as _};
use controller::store::tables::Table;
use futures_util::{StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use proto::clock::{Clock as _, SystemClock};
use proto::id::random_id;
use proto::operator::v1 as api;
use proto::operator::v1::operator_service_client::OperatorServiceClient;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint, Uri};

/// Certificates when nothing else is said.
const COUNT: usize = 1_000_000;
/// Certificates of one batch: with their index rows they stay below the 64 keys of a batch.
const TOGETHER: usize = 6;
/// Batches under way: the writer commits so many at once.
const BATCHES: usize = 256;
/// Of the certificates so many hundredths live 64 days, and so many 45; the others 90.
const OF_64: usize = 30;
const OF_45: usize = 18;
/// How far ahead the first renewal is: an idle controller is measured.
const QUIET: SignedDuration = SignedDuration::from_hours(6 * 24);
/// When the last of the questions to the CA is planned, as far ahead as it may be; the first is a run earlier.
const ASKED: SignedDuration = SignedDuration::from_hours(23);
const RUN: SignedDuration = SignedDuration::from_hours(8);
/// The processor is watched for so long at rest.
const REST: Duration = Duration::from_secs(60);
/// The work of a start is over when the processor was used less than this share of a second.
const QUIET_SHARE: f64 = 0.02;
/// It is waited for so long at most.
const SETTLED_MAX: Duration = Duration::from_secs(3_600);
const READY_MAX: Duration = Duration::from_secs(600);
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (count, state) = wish()?;
    std::fs::create_dir_all(&state)?;
    let site = Site { state };
    site.fill(count).await?;
    site.measure(count).await
}

fn wish() -> anyhow::Result<(usize, PathBuf)> {
    let mut words = std::env::args().skip(1);
    let (mut count, mut state) = (COUNT, std::env::temp_dir().join("certwright-million"));
    while let Some(word) = words.next() {
        if word == "--state" {
            state = words.next().context("--state needs a directory")?.into();
        } else {
            count = word.parse().with_context(|| format!("{word} is no number of certificates"))?;
        }
    }
    Ok((count, state))
}

/// One state directory and the controller on it.
struct Site {
    state: PathBuf,
}

impl Site {
    fn database(&self) -> PathBuf {
        self.state.join("state").join("certwright.redb")
    }

    fn master_key(&self) -> PathBuf {
        self.state.join("master.key")
    }

    fn socket(&self) -> PathBuf {
        self.state.join("operator.sock")
    }

    async fn store(&self) -> anyhow::Result<Store> {
        let backend = Backend::File(self.database());
        let exists = backend.exists();
        Ok(Store::open(backend, !exists, MasterKey::load_or_create(&self.master_key(), exists)?).await?)
    }

    /// Fills the store unless it was filled before.
    async fn fill(&self, count: usize) -> anyhow::Result<()> {
        let store = self.store().await?;
        let there = store.read(|snapshot| snapshot.count(Table::Certificate, "")).await?;
        if usize::try_from(there)? >= count {
            return date(&store).await;
        }
        ensure!(there == 0, "{} is half full: remove it", self.state.display());
        let (now, began) = (SystemClock.now(), Instant::now());
        let mut batches = stream::iter((0..count).step_by(TOGETHER))
            .map(|first| {
                let numbers = first..(first + TOGETHER).min(count);
                let changes = numbers.fold(Changes::new(), |changes, number| certificate(changes, number, now));
                let store = store.clone();
                async move { store.commit(changes).await }
            })
            .buffer_unordered(BATCHES);
        let mut done = 0;
        while let Some(committed) = batches.next().await {
            committed?;
            done += TOGETHER;
            if done % 60_000 < TOGETHER {
                eprintln!("{done} certificates, {:.0} s", began.elapsed().as_secs_f32());
            }
        }
        Ok(())
    }

    fn start(&self) -> anyhow::Result<Child> {
        let program = std::env::current_exe()?;
        let folder = program.parent().and_then(Path::parent).context("an example has a folder")?;
        let mut command = Command::new(folder.join("certwright-controller"));
        command.arg("serve").arg("--state").arg(self.state.join("state"));
        command.arg("--master-key").arg(self.master_key()).arg("--socket").arg(self.socket());
        command.args(["--listen", "127.0.0.1:0"]);
        let log = std::fs::File::create(self.state.join("controller.log"))?;
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
    }

    fn client(&self) -> OperatorServiceClient<Channel> {
        let path = self.socket();
        let connect = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        OperatorServiceClient::new(
            Endpoint::from_static("http://controller.invalid").connect_with_connector_lazy(connect),
        )
    }

    /// Starts the controller and returns how long it took until the socket answered.
    async fn ready(&self) -> anyhow::Result<(Child, Duration)> {
        drop(std::fs::remove_file(self.socket()));
        let began = Instant::now();
        let mut process = self.start()?;
        while began.elapsed() < READY_MAX {
            if self.client().whoami(api::WhoamiRequest {}).await.is_ok() {
                return Ok((process, began.elapsed()));
            }
            if let Some(status) = process.try_wait()? {
                bail!("the controller ended: {status}; see {}", self.state.join("controller.log").display());
            }
            sleep(Duration::from_millis(1)).await;
        }
        bail!("the controller did not answer in {READY_MAX:?}")
    }

    async fn measure(&self, count: usize) -> anyhow::Result<()> {
        let size = std::fs::metadata(self.database())?.len();
        let due = self.due_query().await?;
        let (process, first) = self.ready().await?;
        let id = process.id();
        settle(id).await?;
        eprintln!("ready for the first time after {first:?}");
        end(process, "-TERM").await?;
        let mut clean = Vec::new();
        let mut killed = Vec::new();
        for _ in 0..3 {
            let (process, ready) = self.ready().await?;
            killed.push(ready);
            end(process, "-TERM").await?;
            let (process, ready) = self.ready().await?;
            clean.push(ready);
            sleep(Duration::from_secs(2)).await;
            end(process, "-KILL").await?;
        }
        let (process, ready) = self.ready().await?;
        killed.push(ready);
        let id = process.id();
        settle(id).await?;
        let before = cpu(id)?;
        sleep(REST).await;
        let idle = (cpu(id)? - before) / REST.as_secs_f64();
        let memory = (memory(id, "VmRSS:")?, memory(id, "VmHWM:")?);
        let answers = self.answers().await?;
        let after = crate::memory(id, "VmRSS:")?;
        end(process, "-TERM").await?;
        killed.remove(0);
        document(&Figures { count, size, due, clean, killed, idle, memory, answers, after })
    }

    /// How long it takes to read what is due, and when the next is.
    async fn due_query(&self) -> anyhow::Result<Duration> {
        let (store, now) = (self.store().await?, SystemClock.now());
        let mut took = Vec::new();
        for _ in 0..101 {
            let began = Instant::now();
            for index in INDEXES {
                let due = store.due(index, now, 1_000, |_| false).await?;
                ensure!(due.rows.is_empty() && due.next.is_some(), "the store is not at rest any more: fill it again");
            }
            took.push(began.elapsed());
        }
        took.sort_unstable();
        took.get(50).copied().context("there are so many")
    }

    /// How long the dashboard's questions take.
    async fn answers(&self) -> anyhow::Result<Vec<(&'static str, Option<Duration>)>> {
        let mut client = self.client().max_decoding_message_size(64 << 20);
        let mut took = Vec::new();
        let began = Instant::now();
        let said = timeout(ANSWER_MAX, client.get_overview(api::GetOverviewRequest {})).await;
        took.push(("the overview", said.is_ok_and(|said| told(said.err())).then(|| began.elapsed())));
        for (sort, what) in [("name", "a list by name"), ("urgency", "a list by urgency")] {
            let request = api::ListCertificatesRequest { sort: sort.into(), page_size: 200, ..Default::default() };
            let began = Instant::now();
            let said = timeout(ANSWER_MAX, client.list_certificates(request)).await;
            took.push((what, said.is_ok_and(|said| told(said.err())).then(|| began.elapsed())));
        }
        Ok(took)
    }
}

fn told(error: Option<tonic::Status>) -> bool {
    if let Some(error) = &error {
        eprintln!("{error}");
    }
    error.is_none()
}

/// Plans the questions of a store that was filled earlier anew: a CA is never asked later than in a day.
async fn date(store: &Store) -> anyhow::Result<()> {
    let (now, began) = (SystemClock.now(), Instant::now());
    let first = store.due(Table::QuestionDue, now, 1, |_| false).await?.next;
    if first.is_some_and(|first| first > now + RUN && first < now + ASKED) {
        return Ok(());
    }
    let (mut after, mut done) = (String::new(), 0);
    loop {
        let from = after.clone();
        let part = store
            .read(move |snapshot| {
                snapshot.list::<RenewalInfo>("", Bound::Excluded(&from), Order::Ascending, BATCHES * TOGETHER)
            })
            .await?;
        let Some(last) = part.last() else { return Ok(()) };
        after = last.value.key();
        done += part.len();
        let batches = part.chunks(TOGETHER).map(|chunk| {
            let changes = chunk.iter().fold(Changes::new(), |changes, info| {
                let mut info = info.clone();
                let share = (info.revision % 1_000) as f64 / 1_000.0;
                info.value.ask_at = now + ASKED - RUN.mul_f64(share);
                changes.update(&info)
            });
            store.commit(changes)
        });
        futures_util::future::try_join_all(batches).await?;
        if done % 60_000 < BATCHES * TOGETHER {
            eprintln!("{done} dated, {:.0} s", began.elapsed().as_secs_f32());
        }
    }
}

/// All that is stored of one certificate whose key is at the controller.
fn certificate(changes: Changes, number: usize, now: Timestamp) -> Changes {
    let days: i64 = match number % 100 {
        part if part < OF_64 => 64,
        part if part < OF_64 + OF_45 => 45,
        _ => 90,
    };
    let life = SignedDuration::from_hours(days * 24);
    // Its age is anything that leaves it at rest until the quiet is over; the golden ratio spreads evenly.
    let share = (number as f64 * 0.618_033_988_749_895).fract();
    let at_most = life * 3 / 5 - QUIET;
    let not_before = now - SignedDuration::from_secs_f64(at_most.as_secs_f64() * share);
    let not_after = not_before + life;
    let (id, version_id) = (random_id(), format!("{:012x}{}", not_before.as_millisecond(), random_id()));
    let name = format!("host-{number}");
    let identifiers = vec![format!("{name}.example.com"), format!("www.{name}.example.com")];
    let current = CurrentVersion {
        version_id,
        serial: format!("03{number:034x}"),
        fingerprint_sha256: format!("{number:064x}"),
        not_before,
        not_after,
        issuer_cn: "E7".to_owned(),
        custody: Custody::Controller,
        key_slot_id: random_id(),
        identifiers: identifiers.clone(),
        key_type: KeyType::P256,
        issuer_id: "0issuer".to_owned(),
        profile: None,
        wanted: Some(Wanted { issuer_id: "0issuer".to_owned(), profile: None }),
        key_lost: false,
        revoked_at: None,
        revoked_reason: None,
    };
    // As it is stored: what later days add to the record has its default.
    let record = json!({
        "id": id, "name": name, "auto_renew": true, "created_at": not_before, "current": current, "renew_asked_at": null,
        "purging": false,
        "specification": {
            "identifiers": identifiers, "issuer_id": "0issuer", "key_type": "p256", "custody": "controller",
            "http01": { "standalone": 80 }, "responders": [],
        },
    });
    let record: Certificate = serde_json::from_value(record).expect("a certificate");
    let changes = changes.claim_name(Table::CertificateName, &name, &id).insert(&record);
    hanging(changes, (number, now), (&id, current), share)
}

/// Its version, key and renewal info.
fn hanging(
    changes: Changes,
    (number, now): (usize, Timestamp),
    (id, current): (&str, CurrentVersion),
    share: f64,
) -> Changes {
    let (not_before, life) = (current.not_before, current.not_after.duration_since(current.not_before));
    let (slot_id, identifiers) = (current.key_slot_id.clone(), current.identifiers.clone());
    let version_id = current.version_id.clone();
    let version = Version {
        id: version_id.clone(),
        certificate_id: id.to_owned(),
        facts: current,
        leaf_pem: pem(1_150, number),
        chain_pem: pem(1_600, 7),
        order_url: format!("https://ca.invalid/acme/order/{number}"),
        issued_at: not_before,
        reason: "renewal_info".to_owned(),
    };
    let slot = KeySlot {
        id: slot_id,
        certificate_id: id.to_owned(),
        custody: Custody::Controller,
        agent_id: None,
        identifiers,
        key_type: KeyType::P256,
        csr: Some("M".repeat(420)),
        key: None,
        lost: false,
        problem: None,
    };
    let instant = not_before + life * 2 / 3;
    let info = RenewalInfo {
        certificate_id: id.to_owned(),
        version_id,
        window: Some(Window { start: instant - life / 100, end: instant + life / 100, instant }),
        explanation_url: None,
        answered_at: Some(now),
        ask_at: now + ASKED - RUN.mul_f64(share),
        failures: 0,
        problem: None,
    };
    changes.insert(&version).insert(&slot).insert(&info)
}

/// Text of the size of a PEM.
fn pem(bytes: usize, salt: usize) -> String {
    let body: String = (0..bytes).map(|at| char::from(b'A' + ((at * 7 + salt * 13) % 26) as u8)).collect();
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

/// Waits until the work of a start is over.
async fn settle(id: u32) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut calm = 0;
    let mut before = cpu(id)?;
    while began.elapsed() < SETTLED_MAX {
        sleep(Duration::from_secs(1)).await;
        let now = cpu(id)?;
        calm = if now - before < QUIET_SHARE { calm + 1 } else { 0 };
        before = now;
        if calm >= 5 {
            return Ok(());
        }
    }
    bail!("the controller was still busy after {SETTLED_MAX:?}")
}

/// Processor seconds that a process has used.
fn cpu(id: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).context("a field of stat");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// Memory of a process in MB, as `/proc` spells it.
fn memory(id: u32, field: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("a line of status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1.024 / 1_000.0)
}

/// Ends the controller and waits for it.
async fn end(mut process: Child, signal: &str) -> anyhow::Result<()> {
    Command::new("kill").args([signal, &process.id().to_string()]).status()?;
    while process.try_wait()?.is_none() {
        sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

struct Figures {
    count: usize,
    size: u64,
    due: Duration,
    clean: Vec<Duration>,
    killed: Vec<Duration>,
    idle: f64,
    memory: (f64, f64),
    answers: Vec<(&'static str, Option<Duration>)>,
    after: f64,
}

fn document(figures: &Figures) -> anyhow::Result<()> {
    let millis = |times: &[Duration]| {
        let worst = times.iter().max().copied().unwrap_or_default();
        format!("{:.0} ms (the slowest of {})", worst.as_secs_f64() * 1e3, times.len())
    };
    let due = format!("{:.0} µs (the median of 101)", figures.due.as_secs_f64() * 1e6);
    println!("{} certificates in one store, keys at the controller, no agents.\n", figures.count);
    println!("| what | goal | measured |\n|---|---|---|");
    println!("| what is due, and when the next is, in both indexes | 200 µs | {due} |");
    println!(
        "| at rest, while the proof of the index goes on: share of a core over {} s | 0.5 % | {:.2} % |",
        REST.as_secs(),
        figures.idle * 100.0
    );
    println!("| ready after a clean stop | 100 ms | {} |", millis(&figures.clean));
    println!("| ready after kill -9 | 500 ms | {} |", millis(&figures.killed));
    println!("| memory at rest (most until then) | 150 MB | {:.0} MB ({:.0} MB) |", figures.memory.0, figures.memory.1);
    println!("| file | | {:.2} GB |", figures.size as f64 / 1e9);
    for (what, took) in &figures.answers {
        let took = took.map_or("no answer".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
        println!("| {what} | | {took} |");
    }
    println!("| memory after these answers | | {:.0} MB |", figures.after);
    Ok(())
}
