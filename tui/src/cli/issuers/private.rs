//! `issuers` of private CAs: what they shall be, their root for trust stores, their revocation list.

use std::path::{Path, PathBuf};

use clap::Args;
use proto::operator::v1::{GetIssuerRequest, GetRevocationListRequest, PrivateCaSpec, PrivateRoot};
use proto::types::v1::KeyType;

use crate::cli::certs::key_type;
use crate::cli::save::save;
use crate::cli::session::{Session, invalid};
use crate::client::{ClientError, ErrorKind, parse_period};
use crate::output::time::absolute;
use crate::output::{issuer, safe};

/// What it signs for and how long; the same words for a new one and for one that is there.
#[derive(Args, Debug)]
pub(crate) struct Private {
    /// What the private CA may certify: a host, *.NAME, or a range such as 10.0.0.0/8 (repeats)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    names: Vec<String>,
    /// How long its certificates live; default: 90d
    #[arg(long, value_name = "TIME", value_parser = parse_period)]
    lifetime: Option<u32>,
    /// Where clients fetch its revocation list; written into certificates. `none` writes nothing
    #[arg(long, value_name = "URL")]
    crl_url: Option<String>,
}

/// What only a new one is told.
#[derive(Args, Debug)]
pub(crate) struct NewPrivate {
    /// A CA of the controller's own instead of a directory
    #[arg(long)]
    pub(super) private: bool,
    /// Common name of its root; default: NAME private CA
    #[arg(long, value_name = "CN", requires = "private")]
    common_name: Option<String>,
    /// Key of its root: p256 or p384
    #[arg(long, value_name = "TYPE", requires = "private", value_parser = key_type)]
    key: Option<KeyType>,
    /// How long its root lives; certified again at half of it; default: 3650d
    #[arg(long, value_name = "TIME", requires = "private", value_parser = parse_period)]
    root_lifetime: Option<u32>,
}

impl Private {
    /// Returns what was said of a private CA; `None` when nothing was.
    pub(super) fn spec(self) -> Option<PrivateCaSpec> {
        let said = !self.names.is_empty() || self.lifetime.is_some() || self.crl_url.is_some();
        let list_url = self.crl_url.map(|url| if url == "none" { String::new() } else { url });
        let leaf_life_seconds = self.lifetime.map_or(0, u64::from);
        said.then(|| PrivateCaSpec { names: self.names, leaf_life_seconds, list_url, ..Default::default() })
    }
}

impl NewPrivate {
    /// Returns what a new issuer is told of its private CA.
    pub(super) fn spec(self, common: Private) -> Result<Option<PrivateCaSpec>, ClientError> {
        match (self.private, common.spec()) {
            (false, None) => Ok(None),
            (false, Some(_)) => Err(invalid(
                "--names, --lifetime and --crl-url are of a private CA",
                "say --private, or leave them out",
            )),
            (true, said) => Ok(Some(PrivateCaSpec {
                common_name: self.common_name.unwrap_or_default(),
                key_type: self.key.unwrap_or_default().into(),
                root_life_seconds: self.root_lifetime.map_or(0, u64::from),
                ..said.unwrap_or_default()
            })),
        }
    }
}

/// A file to write to.
#[derive(Args, Debug)]
pub(crate) struct Out {
    name: String,
    /// Write to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Prints the root certificates of a private CA for trust stores, newest first, with what to compare and to do.
pub(super) async fn root(Out { name, out }: Out, session: &mut Session<'_>) -> Result<(), ClientError> {
    let found = session.client.get_issuer(GetIssuerRequest { name: name.clone() }).await?;
    let Some(ca) = found.private_ca.clone() else {
        let hint = "the roots of a CA elsewhere come from that CA";
        return Err(invalid(&format!("issuer {name} is no private CA"), hint));
    };
    if ca.roots.is_empty() {
        let hint = format!("certwright issuers get {name} says why");
        let message = format!("issuer {name} has no root yet");
        return Err(ClientError::local(ErrorKind::Failed, "PRIVATE_CA_NO_ROOT", &message, "", &hint));
    }
    if let crate::output::Format::Json = session.format {
        return session.record(&name, || issuer::json(&found), |_| String::new());
    }
    let pem: String = ca.roots.iter().map(|root| root.pem.as_str()).collect();
    write(out.as_deref(), pem.as_bytes(), session)?;
    for root in &ca.roots {
        session.console.note(&told(root));
    }
    if ca.roots.len() > 1 {
        session.console.note("all have the same key: where a file holds one certificate only, the first one is enough");
    }
    let file = out.map_or_else(|| format!("{name}.crt"), |path| path.display().to_string());
    let file = safe(&file);
    session.console.note(&format!(
        "Debian, Ubuntu: cp {file} /usr/local/share/ca-certificates/{name}.crt && update-ca-certificates"
    ));
    session.console.note(&format!("RHEL, Fedora: cp {file} /etc/pki/ca-trust/source/anchors/ && update-ca-trust"));
    Ok(())
}

fn told(root: &PrivateRoot) -> String {
    let until = proto::clock::from_wire(root.not_after).map(absolute).unwrap_or_default();
    format!("SHA-256 {} until {until}", safe(&root.fingerprint_sha256))
}

/// Prints the revocation list of a private CA, PEM.
pub(super) async fn list(Out { name, out }: Out, session: &mut Session<'_>) -> Result<(), ClientError> {
    let list = session.client.get_revocation_list(GetRevocationListRequest { issuer: name }).await?;
    write(out.as_deref(), issuer::list_pem(&list.der).as_bytes(), session)?;
    let next = proto::clock::from_wire(list.next_at).map(absolute).unwrap_or_default();
    let count = list.revoked;
    session.console.note(&format!("number {}, {count} revoked, the next one is made by {next}", list.number));
    Ok(())
}

/// What is public may be read by everyone.
fn write(out: Option<&Path>, bytes: &[u8], session: &mut Session<'_>) -> Result<(), ClientError> {
    match out {
        Some(path) => save(path, 0o644, bytes),
        None => session.console.print_bytes(bytes),
    }
}
