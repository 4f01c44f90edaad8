//! What must hold after every case (reliability.md §3.2), and the picture that a failed case shows.

use std::fmt::Write as _;
use std::path::Path;

use proto::operator::v1 as api;
use proto::types::v1::TargetStatus;
use proto::x509::{Chain, spki_of_key};

use super::World;

/// Shows the programs' logs of a failing test; `RUST_LOG` chooses.
pub(super) fn watch_logs() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    drop(tracing_subscriber::fmt().with_test_writer().with_env_filter(filter).try_init());
}

impl World {
    /// Checks the invariants: matching pairs (I1), orders (I2), proof (I5), secrets (I4), a next action for every
    /// certificate (I10), and that no client misbehaved at the CA.
    ///
    /// # Panics
    /// When one does not hold.
    pub async fn check(&self) {
        let mut broken = self.ca.violations();
        if self.ca.crowd_max() > 1 {
            broken.push(format!("I2: {} orders were open at once for one identifier set", self.ca.crowd_max()));
        }
        for certificate in self.operator.certificates().await {
            broken.extend(self.check_certificate(&certificate));
        }
        let image = self.controller.disk.bytes();
        if image.windows(11).any(|window| window == b"PRIVATE KEY") {
            broken.push("I4: a private key is on the controller's disk in plain text".to_owned());
        }
        if !broken.is_empty() {
            panic!("{}\n{}", broken.join("\n"), self.picture().await);
        }
    }

    fn check_certificate(&self, certificate: &api::Certificate) -> Vec<String> {
        let mut broken = Vec::new();
        if !has_next_action(certificate, self.now_ms()) {
            broken.push(format!("I10: {} has no next action", certificate.name));
        }
        for target in &certificate.targets {
            let spec = target.spec.clone().unwrap_or_default();
            let Some(site) = self.agents.iter().find(|site| site.machine.name() == spec.agent) else { continue };
            if let Err(why) = check_pair(Path::new(&spec.dir)) {
                broken.push(format!("I1: {} on {}: {why}", certificate.name, spec.agent));
            }
            let current = certificate.current.as_ref().map(|version| version.fingerprint_sha256.clone());
            for endpoint in spec.verify.iter().filter(|_| target.status() == TargetStatus::Applied) {
                let served = site.machine.service().served(&endpoint.server_name);
                let served = served.map(|der| hex(&proto::x509::fingerprint(&der)));
                if target.version_id == certificate.current.as_ref().map_or("", |version| &version.id)
                    && served != current
                {
                    broken.push(format!("I5: {} is applied, but {served:?} is served", certificate.name));
                }
            }
        }
        broken
    }

    /// Returns what the operator sees: certificates, agents, events, the CA's log.
    pub async fn picture(&self) -> String {
        let mut text = String::new();
        for certificate in self.operator.certificates().await {
            let api::Certificate { name, status, deployment, renew_at, .. } = &certificate;
            writeln!(text, "certificate {name}: {status}, deployment {deployment}, renews at {renew_at}").unwrap();
            writeln!(text, "  order {:?}", certificate.order).unwrap();
            writeln!(text, "  issues {:?}", certificate.issues).unwrap();
            for target in &certificate.targets {
                writeln!(text, "  target {:?} {target:?}", target.status()).unwrap();
            }
        }
        for agent in self.operator.agents().await {
            writeln!(text, "agent {}: {}", agent.name, agent.status).unwrap();
        }
        for event in self.operator.events().await.iter().rev() {
            let problem = event.problem.as_ref().map(|problem| format!("{problem:?}")).unwrap_or_default();
            writeln!(text, "event {} {}: {} {problem}", event.at, event.kind, event.message).unwrap();
        }
        for line in self.ca.log() {
            writeln!(text, "ca {} {} {}", line.at, line.path, line.status).unwrap();
        }
        writeln!(text, "now {}", self.now_ms()).unwrap();
        text
    }
}

/// I10: renewal at a known time, a pause that can be lifted, or an order under way with its next try, or nothing wanted.
fn has_next_action(certificate: &api::Certificate, now_ms: i64) -> bool {
    if certificate.pause.is_some() {
        // Lifting it is.
        return true;
    }
    let order = certificate.order.as_ref();
    let phase = order.map_or("", |order| order.phase.as_str());
    match phase {
        "waiting" => order.is_some_and(|order| order.retry_at > 0),
        "failed" => order.is_some_and(|order| order.error.is_some()),
        "" | "completed" => certificate.renew_at > now_ms || certificate.deleting || !certificate.auto_renew,
        _ => true,
    }
}

/// I1: whatever is under the live names is one pair.
fn check_pair(dir: &Path) -> Result<(), String> {
    let (chain, key) = (dir.join("fullchain.pem"), dir.join("key.pem"));
    match (std::fs::read(&chain), std::fs::read_to_string(&key)) {
        (Err(_), Err(_)) => Ok(()),
        (Ok(chain), Ok(key)) => {
            let chain = Chain::parse_pem(&chain).map_err(|error| error.to_string())?;
            let spki = spki_of_key(&key.into()).map_err(|error| error.to_string())?;
            let cert = std::fs::read(dir.join("cert.pem")).map_err(|error| error.to_string())?;
            let cert = Chain::parse_pem(&cert).map_err(|error| error.to_string())?;
            if chain.leaf.spki_der != spki || cert.leaf != chain.leaf {
                return Err("key, certificate and chain do not belong together".to_owned());
            }
            Ok(())
        }
        (chain, key) => Err(format!("half a pair: chain {}, key {}", chain.is_ok(), key.is_ok())),
    }
}

/// Returns lower-case hex.
#[must_use]
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
