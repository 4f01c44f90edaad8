//! `issuers`: the certificate authorities that certificates are ordered from.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use proto::operator::v1::{AddIssuerRequest, GetIssuerRequest, Issuer, ListIssuersRequest, RemoveIssuerRequest};

use super::session::Session;
use crate::client::{ClientError, ErrorKind};
use crate::output::issuer;

/// A bundle of roots is smaller than this.
const ROOT_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists issuers
    Ls,
    /// Shows one issuer
    Get { name: String },
    /// Adds an ACME issuer
    Add(Add),
    /// Removes an issuer that no certificate uses
    Rm { name: String },
}

#[derive(Args, Debug)]
pub(crate) struct Add {
    name: String,
    /// The ACME directory
    #[arg(long, value_name = "URL")]
    directory: String,
    /// PEM file with the roots to trust for this directory instead of the system's
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Contact address for the account
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Accept the issuer's terms of service
    #[arg(long)]
    accept_terms: bool,
}

pub(super) async fn run(verb: Verb, session: &mut Session<'_>) -> Result<(), ClientError> {
    match verb {
        Verb::Ls => {
            let issuers = session.client.list_issuers(ListIssuersRequest {}).await?.items;
            session.list(
                || issuers.iter().map(|issuer| issuer.name.clone()).collect(),
                || issuer::json_list(&issuers),
                |_, wide| issuer::table(&issuers, wide),
            )
        }
        Verb::Get { name } => {
            let found = session.client.get_issuer(GetIssuerRequest { name }).await?;
            show(&found, session)
        }
        Verb::Add(add) => {
            let root_pem = add.root.as_deref().map(read_root).transpose()?.unwrap_or_default();
            let request = AddIssuerRequest {
                name: add.name,
                directory: add.directory,
                root_pem,
                email: add.email.unwrap_or_default(),
                accept_terms: add.accept_terms,
            };
            let added = session.client.add_issuer(request).await?;
            show(&added, session)
        }
        Verb::Rm { name } => {
            session.client.remove_issuer(RemoveIssuerRequest { name: name.clone() }).await?;
            session.console.note(&format!("issuer {} removed", crate::output::safe(&name)));
            Ok(())
        }
    }
}

fn show(found: &Issuer, session: &mut Session<'_>) -> Result<(), ClientError> {
    session.record(&found.name, || issuer::json(found), |_| issuer::describe(found))
}

fn read_root(path: &Path) -> Result<String, ClientError> {
    let unreadable = |cause: &str| {
        let message = format!("the roots in {} could not be read", path.display());
        let hint = "give --root a PEM file with the issuer's root certificates";
        ClientError::local(ErrorKind::Invalid, "ROOT_UNREADABLE", &message, cause, hint)
    };
    let size = std::fs::metadata(path).map_err(|error| unreadable(&error.to_string()))?.len();
    if size > ROOT_BYTES_MAX {
        return Err(unreadable("the file is larger than 1 MiB"));
    }
    let pem = std::fs::read_to_string(path).map_err(|error| unreadable(&error.to_string()))?;
    if pem.contains("PRIVATE KEY") {
        return Err(unreadable("the file holds a private key, which must not leave its place"));
    }
    if pem.contains("BEGIN CERTIFICATE") { Ok(pem) } else { Err(unreadable("the file holds no PEM certificate")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_certificates_and_never_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let check = |content: &str, cause: &str| {
            let path = dir.path().join("root.pem");
            std::fs::write(&path, content).unwrap();
            assert!(read_root(&path).unwrap_err().problem.cause.contains(cause), "{content}");
        };
        check("hello", "no PEM");
        check("-----BEGIN PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----", "private key");
        assert_eq!(read_root(Path::new("/nonexistent")).unwrap_err().kind.exit_code(), 2);
    }
}
