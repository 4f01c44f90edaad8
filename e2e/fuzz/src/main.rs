//! One program for all parsers: `FUZZ=PARSER` says which one gets libFuzzer's bytes. A parser may refuse everything and must
//! never panic, overflow or hang. Built and started by `scripts/soak --fuzz`; `--parsers` lists them.
#![no_main]

use std::sync::OnceLock;

use controller::lifecycle::filter::Filter;
use controller::lifecycle::identifier;
use controller::lifecycle::private_ca::Allowed;
use libfuzzer_sys::fuzz_target;
use proto::audit::Chain;
use proto::id::{Identity, JoinToken};
use proto::types::v1::Endpoint;
use proto::x509::{self, CsrFacts, LeafFacts};

type Parser = fn(&[u8]);

/// Every parser, by where its bytes come from.
const PARSERS: &[(&str, Parser)] = &[
    // A CA.
    ("directory", controller::fuzzing::directory),
    ("problem", controller::fuzzing::problem),
    ("chain", |bytes| drop(x509::Chain::parse_pem(bytes))),
    ("certificates", |bytes| drop(x509::parse_certificates(bytes))),
    // A monitored host, an agent's report, a CA.
    ("leaf", |bytes| drop(LeafFacts::parse(bytes))),
    // An agent.
    ("csr", |bytes| drop(CsrFacts::parse(bytes))),
    ("identity", |bytes| text(bytes, |text| drop(text.parse::<Identity>()))),
    ("token", |bytes| text(bytes, |text| drop(JoinToken::parse(text)))),
    // A controller that was taken over, and whoever reaches port 80.
    ("desired", agent::fuzzing::desired),
    ("http01", |bytes| text(bytes, agent::fuzzing::http01_head)),
    // Whoever configures a virtual host.
    ("detected", |bytes| text(bytes, agent::fuzzing::detected)),
    // A service whose certificate is looked at.
    ("preamble", agent::fuzzing::preamble),
    // An operator, and files.
    ("endpoint", |bytes| text(bytes, |text| drop(text.parse::<Endpoint>()))),
    ("identifier", |bytes| text(bytes, |text| drop(identifier::parse(text)))),
    ("backup", controller::fuzzing::backup),
    ("filter", |bytes| text(bytes, |text| drop(Filter::parse(text)))),
    ("allowed", |bytes| text(bytes, |text| drop(text.parse::<Allowed>()))),
    ("policy", |bytes| text(bytes, |text| drop(agent::policy::Policy::parse("policy.toml", text)))),
    ("audit", |bytes| text(bytes, |text| drop(Chain::default().follow(text)))),
    ("one_line", |bytes| text(bytes, one_line)),
];

fn text(bytes: &[u8], parse: impl Fn(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        parse(text);
    }
}

/// The sanitizer before every terminal, log and file.
fn one_line(text: &str) {
    let line = proto::text::one_line(text, 40);
    assert!(line.chars().count() <= 41 && !line.chars().any(char::is_control), "{line:?}");
}

fn chosen() -> Parser {
    static CHOSEN: OnceLock<Parser> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let wish = std::env::var("FUZZ").unwrap_or_default();
        let found = PARSERS.iter().find(|(name, _)| *name == wish);
        found.unwrap_or_else(|| panic!("FUZZ={wish} is no parser; --parsers lists them")).1
    })
}

fuzz_target!(init: {
    if std::env::args().any(|word| word == "--parsers") {
        PARSERS.iter().for_each(|(name, _)| println!("{name}"));
        std::process::exit(0);
    }
}, |bytes: &[u8]| chosen()(bytes));
