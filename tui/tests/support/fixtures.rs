//! Records as a controller would show them, at one fixed time. Included by tests with `#[path]`.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses its part, and ends by panicking")]

use jiff::Timestamp;
use proto::clock::{Clock, to_wire};
use proto::operator::v1::*;
use proto::types::v1::*;

/// When every test happens.
pub(crate) const NOW: &str = "2026-11-21T21:30:00Z";
pub(crate) const MINUTE: i64 = 60;
pub(crate) const DAY: i64 = 86_400;
pub(crate) const FINGERPRINT: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// A clock that stands at `NOW`.
#[derive(Debug)]
pub(crate) struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        NOW.parse().unwrap()
    }
}

/// Returns the wire's instant, `seconds` after `NOW`.
pub(crate) fn at(seconds: i64) -> i64 {
    to_wire(Some(StoppedClock.now())) + seconds * 1_000
}

pub(crate) fn problem() -> Problem {
    Problem {
        reason: "RELOAD_FAILED".into(),
        message: "/usr/sbin/nginx -s reload on h1 ended with exit status 1".into(),
        cause: "nginx: [emerg] unknown directive \"wrker_processes\" in /etc/nginx/nginx.conf:3".into(),
        hint: "correct the configuration on h1; the deployment is tried again by itself".into(),
    }
}

pub(crate) fn version() -> Version {
    Version {
        id: "01jversion0000000000000001".into(),
        serial: "04ab12cd".into(),
        fingerprint_sha256: FINGERPRINT.into(),
        not_before: at(-DAY),
        not_after: at(89 * DAY),
        issuer_cn: "Pebble Intermediate CA 4b4f0c".into(),
        custody: Custody::Agent.into(),
        identifiers: vec!["h1.example.test".into()],
        issued_at: at(-DAY),
        current: true,
        deployable: true,
        reason: "first".into(),
        issuer: "lab".into(),
        ..Default::default()
    }
}

/// The version before `version()`.
pub(crate) fn earlier_version() -> Version {
    Version {
        id: "01jversion0000000000000000".into(),
        serial: "03ffee00".into(),
        fingerprint_sha256: FINGERPRINT.chars().rev().collect(),
        not_before: at(-61 * DAY),
        not_after: at(29 * DAY),
        issued_at: at(-61 * DAY),
        current: false,
        deployable: false,
        ..version()
    }
}

/// A version before that one, which was revoked.
pub(crate) fn revoked_version() -> Version {
    Version {
        id: "01jversion000000000000000a".into(),
        serial: "02bad000".into(),
        revoked_at: at(-60 * DAY),
        revoked_reason: "keyCompromise".into(),
        ..earlier_version()
    }
}

pub(crate) fn target(status: TargetStatus) -> Target {
    let file = |content: FileContent, name: &str, mode| FileSpec {
        content: content.into(),
        name: name.into(),
        mode,
        owner: String::new(),
    };
    Target {
        id: "01jtarget00000000000000001".into(),
        spec: Some(TargetSpec {
            agent: "h1".into(),
            dir: "/etc/nginx/ssl/h1.example.test".into(),
            files: vec![
                file(FileContent::Key, "key.pem", 0o600),
                FileSpec { owner: "root:www-data".into(), ..file(FileContent::Fullchain, "fullchain.pem", 0o644) },
            ],
            validate: Vec::new(),
            reload: vec![Command { argv: vec!["/usr/sbin/nginx".into(), "-s".into(), "reload".into()] }],
            verify: vec![Endpoint {
                address: "127.0.0.1:443".into(),
                server_name: "h1.example.test".into(),
                protocol: 0,
            }],
            on_drift: 0,
        }),
        status: status.into(),
        served_fingerprint_sha256: if status == TargetStatus::Applied { FINGERPRINT.into() } else { String::new() },
        version_id: version().id,
        agent_status: "connected".into(),
        started_at: at(-DAY),
        finished_at: at(-DAY + 2),
        attempt: 1,
        ..Target::default()
    }
}

/// A target whose files were changed behind the agent's back, and that only shows it.
pub(crate) fn drifted_target() -> Target {
    let mut target = target(TargetStatus::Drifted);
    if let Some(spec) = target.spec.as_mut() {
        spec.on_drift = OnDrift::Show.into();
    }
    let differences = vec!["key.pem is missing".to_owned(), "fullchain.pem was changed".to_owned()];
    target.problem = Some(Problem {
        reason: "DRIFTED".into(),
        message: "files in /etc/nginx/ssl/h1.example.test are not as the agent wrote them".into(),
        cause: differences.join("; "),
        hint: "this target only shows it: certwright targets deploy NAME writes the files again".into(),
    });
    target.drift = Some(Drift { differences, seen_at: at(-60 * MINUTE), ended_at: 0, times: 1, repairs: 0 });
    target
}

/// The same, where the agent repaired it.
pub(crate) fn repaired_target() -> Target {
    let drift =
        drifted_target().drift.map(|drift| Drift { ended_at: at(-60 * MINUTE + 3), times: 2, repairs: 2, ..drift });
    Target { drift, ..target(TargetStatus::Applied) }
}

/// A target whose reload failed.
pub(crate) fn broken_target() -> Target {
    Target {
        problem: Some(problem()),
        steps: vec![StepReport {
            name: "reload".into(),
            subject: "/usr/sbin/nginx -s reload".into(),
            ok: false,
            exit_status: Some(1),
            output: "nginx: [emerg] unknown directive\nnginx: configuration test failed".into(),
            took_ms: 12,
        }],
        retry_at: at(MINUTE),
        ..target(TargetStatus::RolledBack)
    }
}

pub(crate) fn phase(name: &str, state: &str, took_ms: u64, detail: &str) -> PhaseStep {
    PhaseStep { name: name.into(), state: state.into(), started_at: at(0), took_ms, detail: detail.into() }
}

pub(crate) fn completed_order() -> Order {
    Order {
        phase: "completed".into(),
        attempt: 1,
        started_at: at(-DAY),
        order_url: "https://ca.example.test/order/1".into(),
        reason: "first".into(),
        phases: vec![phase("ordering", "done", 812, ""), phase("completed", "done", 0, "")],
        authorizations: vec![Authorization {
            identifier: "h1.example.test".into(),
            state: "valid".into(),
            responders_serving: 1,
            responders_total: 1,
        }],
        ..Order::default()
    }
}

/// A healthy certificate.
pub(crate) fn certificate(name: &str) -> Certificate {
    Certificate {
        id: "01jcertificate000000000001".into(),
        revision: 7,
        name: name.into(),
        kind: CertificateKind::Acme.into(),
        identifiers: vec!["h1.example.test".into(), "www.h1.example.test".into()],
        issuer: "lab".into(),
        key_type: KeyType::P256.into(),
        custody: Custody::Agent.into(),
        http01: Some(Http01 { mode: Some(http01::Mode::StandalonePort(80)) }),
        status: "active".into(),
        deployment: "ok".into(),
        renew_at: at(59 * DAY),
        renew_reason: "lifetime_fraction".into(),
        current: Some(version()),
        targets: vec![target(TargetStatus::Applied)],
        order: Some(completed_order()),
        created_at: at(-DAY),
        auto_renew: true,
        ..Certificate::default()
    }
}

/// A certificate just created: nothing has happened yet.
pub(crate) fn fresh_certificate(name: &str) -> Certificate {
    Certificate {
        status: "pending".into(),
        deployment: "pending".into(),
        current: None,
        order: None,
        renew_at: 0,
        renew_reason: String::new(),
        created_at: at(0),
        targets: vec![Target { started_at: 0, finished_at: 0, attempt: 0, ..target(TargetStatus::Pending) }],
        ..certificate(name)
    }
}

/// A certificate with everything that can be wrong.
pub(crate) fn troubled_certificate(name: &str) -> Certificate {
    Certificate {
        deployment: "failed".into(),
        responders: vec!["front".into()],
        issues: vec![Issue {
            kind: "responder_offline".into(),
            cause: "agent front has been offline since yesterday".into(),
            action: "start certwright-agent on front".into(),
            since_at: at(-DAY),
        }],
        targets: vec![broken_target()],
        order: Some(Order {
            phase: "waiting".into(),
            attempt: 2,
            retry_at: at(10 * MINUTE),
            error: Some(Problem {
                reason: "RATE_LIMITED".into(),
                message: "the CA refused the order".into(),
                cause: "urn:ietf:params:acme:error:rateLimited".into(),
                hint: "nothing to do: the order is tried again when the CA allows it".into(),
            }),
            phases: vec![phase("ordering", "waiting", 0, "until the CA allows it")],
            reason: "expiring".into(),
            ..completed_order()
        }),
        renewal_info: Some(RenewalInfo {
            window_start: at(58 * DAY),
            window_end: at(60 * DAY),
            instant: at(59 * DAY),
            explanation_url: "https://ca.test/why".into(),
            ask_at: at(6 * 60 * MINUTE),
            problem: None,
        }),
        reasons: vec![
            RenewalReason { reason: "key_lost".into(), holds: true, at: 0 },
            RenewalReason { reason: "renewal_info".into(), holds: false, at: at(59 * DAY) },
            RenewalReason { reason: "operator_asked".into(), holds: false, at: 0 },
        ],
        limits: Some(OrderLimits {
            issuer: "lab".into(),
            exemption: String::new(),
            items: vec![
                LimitLine { used: 12, left: 288, refills_at: at(4 * MINUTE), ..limit("orders", "", 300, 10_800) },
                LimitLine {
                    used: 3,
                    left: 47,
                    refills_at: at(DAY),
                    ..limit("registered-domain", "example.test", 50, 604_800)
                },
            ],
        }),
        ..certificate(name)
    }
}

/// A limit of which nothing is used.
pub(crate) fn limit(kind: &str, name: &str, count: u32, period_seconds: u32) -> LimitLine {
    LimitLine {
        kind: kind.into(),
        name: name.into(),
        count,
        period_seconds,
        left: count,
        source: "published".into(),
        ..LimitLine::default()
    }
}

pub(crate) fn agent(name: &str) -> Agent {
    Agent {
        labels: vec!["role=web".into()],
        id: "01jagent000000000000000001".into(),
        revision: 3,
        name: name.into(),
        status: "connected".into(),
        version: "0.1.0".into(),
        hostname: format!("{name}.example.test"),
        os: "Debian GNU/Linux 12 (bookworm)".into(),
        features: vec!["http01-standalone".into(), "http01-webroot".into()],
        policy: Some(Policy {
            dirs: vec![PolicyDir {
                path: "/etc/nginx/ssl".into(),
                names: vec!["*.example.test".into()],
                files: vec!["*.pem".into(), "*.key".into()],
                owners: vec!["root:root".into()],
                key_mode_max: 0o640,
            }],
            commands: vec![Command { argv: vec!["/usr/sbin/nginx".into(), "-s".into(), "reload".into()] }],
            http01_ports: vec![80],
            webroots: vec!["/var/www/html".into()],
            custody: vec![Custody::Agent.into(), Custody::Controller.into()],
        }),
        enrolled_at: at(-30 * DAY),
        last_seen_at: at(-3),
        identity_not_after: at(29 * DAY),
        identity_serial: "0a0b".into(),
        clock_skew_ms: -12,
        problems: Vec::new(),
        consent_until: 0,
        address: "192.0.2.11".into(),
        identity_ca: String::new(),
        targets: vec![AgentTarget {
            certificate: "web".into(),
            dir: "/etc/nginx/ssl/h1.example.test".into(),
            status: TargetStatus::Applied.into(),
        }],
        generation: 5,
        generation_reported: 5,
    }
}

pub(crate) fn issuer(name: &str) -> Issuer {
    Issuer {
        id: "01jissuer00000000000000001".into(),
        revision: 2,
        name: name.into(),
        directory: "https://ca.example.test/dir".into(),
        own_root: true,
        contacts: vec!["mailto:ops@example.test".into()],
        terms_accepted: true,
        account_status: "valid".into(),
        account_url: "https://ca.example.test/account/1".into(),
        certificates: 1,
        terms_url: "https://ca.example.test/terms".into(),
        limits: "free".into(),
        problem: None,
        ..Default::default()
    }
}

/// One issuer that works and is used, and one that wants its terms agreed to and is not.
pub(crate) fn issuers() -> Vec<Issuer> {
    let profile = |name: &str, description: &str| IssuerProfile { name: name.into(), description: description.into() };
    let problem = Problem {
        reason: "ISSUER_HALTED".into(),
        message: "le wants its new terms of service agreed to".into(),
        cause: "urn:ietf:params:acme:error:userActionRequired".into(),
        hint: "read https://ca.example.test/terms-2, then: certwright issuers set le --accept-terms".into(),
    };
    let le = Issuer {
        id: "01jissuer00000000000000002".into(),
        name: "le".into(),
        directory: "https://acme-v02.api.letsencrypt.org/directory".into(),
        own_root: false,
        terms_accepted: false,
        account_status: "terms".into(),
        certificates: 0,
        limits: "closed".into(),
        profiles: vec![
            profile("classic", "https://letsencrypt.org/docs/profiles#classic"),
            profile("shortlived", "https://letsencrypt.org/docs/profiles#shortlived"),
        ],
        profile: "classic".into(),
        preferred_chain: "ISRG Root X1".into(),
        staging_directory: "https://acme-staging-v02.api.letsencrypt.org/directory".into(),
        problem: Some(problem),
        ..issuer("le")
    };
    vec![issuer("lab"), le]
}

/// A CA of the controller's own, with its second root.
pub(crate) fn private_issuer() -> Issuer {
    let root = |letter: &str, from: i64| PrivateRoot {
        pem: format!("-----BEGIN CERTIFICATE-----\n{letter}\n-----END CERTIFICATE-----\n"),
        fingerprint_sha256: letter.repeat(64),
        not_before: at(from),
        not_after: at(from + 315_360_000),
    };
    let private_ca = PrivateCa {
        common_name: "corp private CA".into(),
        key_type: 1,
        names: vec!["*.corp.example".into(), "10.0.0.0/8".into()],
        leaf_life_seconds: 7_776_000,
        root_life_seconds: 315_360_000,
        list_url: "http://crl.corp.example/crl/corp.crl".into(),
        roots: vec![root("b", -86_400), root("a", -157_680_000)],
        next_root_at: at(157_593_600),
        list_number: 1_800_000_007,
        list_made_at: at(-60),
        list_next_at: at(302_340),
        revoked: 2,
    };
    Issuer {
        id: "01jissuer00000000000000003".into(),
        revision: 5,
        name: "corp".into(),
        account_status: "private".into(),
        certificates: 12,
        limits: "none".into(),
        private_ca: Some(private_ca),
        ..Default::default()
    }
}

/// Limits of which one is full and one is closed.
pub(crate) fn limits(issuer: &str) -> ListLimitsResponse {
    let closed = LimitLine {
        used: 7,
        left: 43,
        refills_at: at(9_000),
        closed_until: at(90 * MINUTE),
        cause: "too many certificates".into(),
        ..limit("registered-domain", "example.com", 50, 604_800)
    };
    let items = vec![
        LimitLine { used: 300, left: 0, refills_at: at(36), waiting: 1, ..limit("orders", "", 300, 10_800) },
        closed,
        limit("exact-set", "", 5, 604_800),
        LimitLine { source: "default".into(), ..limit("requests", "", 100, 1) },
    ];
    ListLimitsResponse { issuer: issuer.into(), host: "ca.example.test".into(), published: true, items }
}

/// Root, a user of the host, someone elsewhere, and an open invitation.
pub(crate) fn team() -> ListOperatorsResponse {
    let operator = |name: &str, kind: &str, role: &str| Operator {
        name: name.into(),
        kind: kind.into(),
        role: role.into(),
        ..Operator::default()
    };
    let alice = Operator {
        uid: 1000,
        created_at: at(-DAY),
        created_by: "local:root".into(),
        seen_at: at(-90),
        id: "o1".into(),
        revision: 7,
        ..operator("local:alice", "local", "maintainer")
    };
    let bob = Operator {
        created_at: at(-3 * DAY),
        created_by: "local:alice".into(),
        identity_not_after: at(11 * DAY),
        id: "o2".into(),
        ..operator("bob\u{1b}[31m", "remote", "auditor")
    };
    let pending = PendingInvitation {
        name: "carol".into(),
        role: "viewer".into(),
        expires_at: at(86_000),
        created_by: "local:root".into(),
    };
    let items = vec![operator("local:root", "built-in", "owner"), alice, bob];
    ListOperatorsResponse { items, pending: vec![pending] }
}

pub(crate) fn job(state: &str, phase: &str) -> Job {
    Job {
        id: "J1".into(),
        kind: "issue".into(),
        certificate: "web".into(),
        actor: "local:root".into(),
        created_at: at(0),
        state: state.into(),
        phase: phase.into(),
        ..Job::default()
    }
}

pub(crate) fn event(seq: u64, kind: &str, message: &str) -> Event {
    Event {
        seq,
        at: at(i64::try_from(seq).unwrap() - 100),
        severity: "info".into(),
        actor: "controller".into(),
        kind: kind.into(),
        certificate: "web".into(),
        message: message.into(),
        ..Event::default()
    }
}

pub(crate) fn whoami() -> WhoamiResponse {
    WhoamiResponse {
        operator: "local:root".into(),
        role: "owner".into(),
        controller_version: "0.1.0".into(),
        controller_name: "ctl".into(),
        advertise: "ctl.example.test:7443".into(),
        mail: "root by /usr/sbin/sendmail".into(),
        denied: vec![],
        identity_not_after: 0,
    }
}

pub(crate) fn overview() -> GetOverviewResponse {
    let count = |state: &str, count| Count { state: state.into(), count };
    GetOverviewResponse {
        certificates: vec![count("active", 2), count("failed", 0), count("pending", 1)],
        deployments: vec![count("ok", 1), count("failed", 1)],
        agents: vec![count("connected", 1), count("offline", 1)],
        attention: vec![Attention {
            kind: "agent".into(),
            name: "front".into(),
            what: "AGENT DOWN".into(),
            why: "not seen for 1 day".into(),
            action: "start certwright-agent on front".into(),
            since_at: at(-DAY),
        }],
        attention_total: 3,
        jobs: vec![job("running", "ordering")],
        expiring_by_week: vec![0, 0, 1],
        next_renewal_name: "web".into(),
        next_renewal_at: at(59 * DAY),
        issuers: 1,
        ..GetOverviewResponse::default()
    }
}

/// A rotation that one agent is not ready to end.
pub(crate) fn identity_ca() -> IdentityCa {
    let slot = |fingerprint: &str, shown: bool| IdentityCaSlot {
        fingerprint_sha256: fingerprint.repeat(8),
        not_before: at(-DAY),
        not_after: at(3_650 * DAY),
        signs: !shown,
        shown,
    };
    let waiting = IdentityCaPeer {
        kind: "agent".into(),
        name: "h2".into(),
        lacks: "still has a leaf of the old CA".into(),
        last_seen_at: at(-3_600),
    };
    IdentityCa {
        phase: "activated".into(),
        slots: vec![slot("0a1b2c3d", true), slot("4e5f6a7b", false)],
        ready: 4,
        waiting_total: 1,
        waiting: vec![waiting],
        next: "those listed become ready by themselves once they connect".into(),
    }
}

/// A restore of yesterday's backup that waits; one agent is away, and one holds what the backup does not have.
pub(crate) fn restore() -> GetRestoreResponse {
    let agent = |name: &str, shown| RestoreAgent { name: name.into(), shown, connected: shown };
    let finding = |certificate: &str, outcome: &str, why: &str| RestoreFinding {
        agent: "h1".into(),
        certificate: certificate.into(),
        serial: "04ab12cd".into(),
        not_after: at(80 * DAY),
        outcome: outcome.into(),
        why: why.into(),
    };
    GetRestoreResponse {
        state: "waiting".into(),
        epoch: 2,
        restored_at: at(-2 * 3_600),
        restored_by: "local:root".into(),
        backup_at: at(-DAY),
        controller: "ctl-1".into(),
        audit_seq: 1_200,
        witnessed_seq: 1_230,
        witnessed_by: "h1".into(),
        removals_known: true,
        removals: 2,
        agents: vec![agent("h1", true), agent("h2", true), agent("h3", false)],
        findings: vec![
            finding("web", "import", ""),
            finding(
                "api",
                "import_without_key",
                "its key was lost with the database: a new version is ordered at once",
            ),
            finding("old.example.test", "unknown", "no certificate of the database has this target"),
        ],
        operators: vec!["alice".into(), "bob".into()],
        ..GetRestoreResponse::default()
    }
}

/// What a test of two targets finds: one fails at its service's own test, the other one's agent is away.
pub(crate) fn tests() -> Vec<TargetTest> {
    let step = |name: &str, subject: &str, result: TestResult, found: &str| TestStep {
        name: name.into(),
        subject: subject.into(),
        result: result.into(),
        found: found.into(),
        ..TestStep::default()
    };
    let problem = |reason: &str, message: &str, cause: &str, hint: &str| Problem {
        reason: reason.into(),
        message: message.into(),
        cause: cause.into(),
        hint: hint.into(),
    };
    let refused = problem(
        "VALIDATE_FAILED",
        "`/usr/sbin/nginx -t` ended with status 1, so nothing was reloaded",
        "nginx: [emerg] unknown directive \"sslx\" in /etc/nginx/nginx.conf:4",
        "correct the service on this server",
    );
    let validate = step("validate", "/usr/sbin/nginx -t", TestResult::Failed, "");
    let steps = vec![
        step("policy", "/etc/certwright/policy.toml", TestResult::Ok, "it allows all of it, by [[dir]] /etc/nginx/ssl"),
        step("file", "/etc/nginx/ssl/key.pem", TestResult::Warning, "it is a stranger's"),
        TestStep { problem: Some(refused), took_ms: 31, ..validate },
        step("reload", "/usr/sbin/nginx -s reload", TestResult::Skipped, "the policy does not allow it"),
    ];
    let away = problem("AGENT_AWAY", "agent h2 is away since 2027-01-15 07:00:00 UTC", "", "start it on its server");
    let test = |agent: &str| TargetTest { agent: agent.into(), dir: "/etc/nginx/ssl".into(), ..TargetTest::default() };
    vec![TargetTest { steps, ..test("h1") }, TargetTest { problem: Some(away), ..test("h2") }]
}

/// What a look at challenges found: a redirect that loses the path, and a name that is well.
pub(crate) fn checked() -> CheckChallengesResponse {
    let hop = |url: &str, outcome: &str| ChallengeHop {
        url: url.into(),
        address: "192.0.2.1".into(),
        outcome: outcome.into(),
    };
    let hops = vec![
        hop("http://h1.example.test/.well-known/acme-challenge/abc", "301, to https://h1.example.test/"),
        hop("https://h1.example.test/", "200"),
    ];
    let problem = Problem {
        reason: "PREFLIGHT_REDIRECT_LOSES_PATH".into(),
        message: "A redirect keeps the CA from the challenge at https://h1.example.test/ at 192.0.2.1".into(),
        cause: "the answer is \"<h1>\u{1b}[2J\"".into(),
        hint: "exempt /.well-known/acme-challenge/ from the redirect".into(),
    };
    let way = |seen: Seen, problem: Option<Problem>| ChallengeTrail {
        address: "192.0.2.1".into(),
        seen: seen.into(),
        problem,
        hops: hops.clone(),
    };
    let name = |identifier: &str, seen: Seen, problem: Option<Problem>| NameSeen {
        identifier: identifier.into(),
        seen: seen.into(),
        problem: problem.clone(),
        trails: vec![way(seen, problem)],
    };
    let h1 = ChallengeResponder { agent: "h1".into(), problem: None };
    CheckChallengesResponse {
        responders: vec![h1],
        names: vec![name("h1.example.test", Seen::Blocked, Some(problem)), name("h2.example.test", Seen::Ok, None)],
    }
}

fn certbot() -> FoundRenewer {
    FoundRenewer {
        program: "certbot".into(),
        name: "www".into(),
        certificate: "/etc/nginx/tls/www.pem".into(),
        is_active: true,
        ..FoundRenewer::default()
    }
}

/// What agent h1 found: a site with a certificate that another program renews, and a site without one.
pub(crate) fn detected() -> Detected {
    let file = |content: FileContent, name: &str, mode| FileSpec {
        content: content.into(),
        name: name.into(),
        owner: String::new(),
        mode,
    };
    let target = TargetSpec {
        agent: "h1".into(),
        dir: "/etc/nginx/tls".into(),
        files: vec![file(FileContent::Fullchain, "www.pem", 0o644), file(FileContent::Key, "www.key", 0o600)],
        reload: vec![Command { argv: vec!["/usr/bin/systemctl".into(), "reload".into(), "nginx".into()] }],
        verify: vec!["127.0.0.1:443".parse().unwrap()],
        on_drift: OnDrift::Repair.into(),
        ..TargetSpec::default()
    };
    let webroot = Http01 { mode: Some(http01::Mode::Webroot("/var/www/html".into())) };
    let suggestion = |name: &str, kind: &str| Suggestion {
        name: name.into(),
        kind: kind.into(),
        certificate: name.into(),
        identifiers: vec![name.into()],
        preset: "nginx".into(),
        target: Some(target.clone()),
        http01: Some(webroot.clone()),
        adopts: true,
        source: "/etc/nginx/sites-enabled/www".into(),
        ..Suggestion::default()
    };
    let www = Suggestion {
        warnings: vec!["certbot renews it too, by itself: two writers of one file".into()],
        first: vec!["mv a b".into()],
        policy: vec!["[[dir]]".into(), "path = \"/etc/nginx/tls\"".into()],
        ..suggestion("www.example.test", "certificate")
    };
    let site = FoundSite {
        service: "nginx".into(),
        names: vec!["www.example.test".into()],
        listens: vec!["127.0.0.1:443".into()],
        certificate: "/etc/nginx/tls/www.pem".into(),
        root: "/var/www/html".into(),
        wordpress: true,
        source: "/etc/nginx/sites-enabled/www".into(),
        ..FoundSite::default()
    };
    let found = FoundCertificate {
        path: "/etc/nginx/tls/www.pem".into(),
        key_path: "/etc/nginx/tls/www.key".into(),
        key: FoundKey::Matches.into(),
        identifiers: vec!["www.example.test".into()],
        not_after: at(9 * 86_400),
        ..FoundCertificate::default()
    };
    Detected {
        agent: "h1".into(),
        seen_at: at(-120),
        agent_version: "0.1.0".into(),
        picture: Some(Picture {
            os: "Debian GNU/Linux 12 (bookworm)".into(),
            services: vec![FoundService { preset: "nginx".into(), unit: "nginx".into(), is_running: true }],
            sites: vec![site],
            certificates: vec![found],
            renewers: vec![certbot()],
            notes: vec!["a note".into()],
        }),
        suggestions: vec![www, suggestion("web", "target"), suggestion("shop", "present")],
    }
}
