//! `agents detect` and `agents apply`: what is on a server, and the certificates and targets that follow from it.

use clap::Args;
use proto::operator::v1::{
    AddTargetRequest, CertificateAccepted, CreateCertificateRequest, DetectAgentRequest, Detected, GetDetectedRequest,
    ListIssuersRequest, Suggestion,
};

use crate::cli::session::{Session, WaitOptions, invalid};
use crate::cli::wait;
use crate::client::{ClientError, DetectedLine, ErrorKind, suggestion_lines};
use crate::output::{detected, safe};

#[derive(Args, Debug)]
pub(crate) struct Detect {
    name: String,
    /// Show what was found last, and do not look anew
    #[arg(long)]
    stored: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Apply {
    name: String,
    /// Suggestions, as `agents detect` calls them
    #[arg(value_name = "SUGGESTION", required_unless_present = "all")]
    suggestions: Vec<String>,
    /// Every suggestion that is not done yet
    #[arg(long, conflicts_with = "suggestions")]
    all: bool,
    /// Issuer of new certificates; default: the only one there is
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    #[command(flatten)]
    wait: WaitOptions,
    /// Show and check everything, and change nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
}

pub(super) async fn detect(detect: Detect, session: &mut Session<'_>) -> Result<(), ClientError> {
    let name = detect.name;
    let found = match detect.stored {
        true => session.client.get_detected(GetDetectedRequest { name }).await?,
        false => session.client.detect_agent(DetectAgentRequest { name }).await?,
    };
    session.record(&found.agent, || detected::json(&found), |now| detected::describe(&found, now))
}

pub(super) async fn apply(apply: Apply, session: &mut Session<'_>) -> Result<(), ClientError> {
    let found = session.client.get_detected(GetDetectedRequest { name: apply.name.clone() }).await?;
    let chosen = chosen(&apply, &found)?;
    let mut failed = None;
    for one in &chosen {
        for line in suggestion_lines(one) {
            let text = match line {
                DetectedLine::Section(text) | DetectedLine::Text(text) => text,
                DetectedLine::Below(text) => format!("    {text}"),
            };
            session.console.note(&safe(&text));
        }
        // One that fails stops no other.
        if let Err(error) = apply_one(&apply, one, session).await {
            session.console.note(&format!("{}: {}", safe(&one.name), safe(&error.problem.message)));
            failed = Some(error);
        }
    }
    match failed {
        Some(error) if chosen.len() > 1 => Err(ClientError { kind: ErrorKind::Partial, ..error }),
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn chosen(apply: &Apply, found: &Detected) -> Result<Vec<Suggestion>, ClientError> {
    let name = &apply.name;
    if found.seen_at == 0 {
        let hint = format!("certwright agents detect {name}");
        return Err(ClientError::local(ErrorKind::NotFound, "NOT_DETECTED", "nothing was looked at yet", "", &hint));
    }
    let open = found.suggestions.iter().filter(|one| one.kind != "present");
    if apply.all {
        return Ok(open.cloned().collect());
    }
    let mut chosen = Vec::new();
    for wanted in &apply.suggestions {
        let Some(one) = found.suggestions.iter().find(|one| one.name == *wanted) else {
            let message = format!("there is no suggestion {wanted} for {name}");
            let hint = format!("certwright agents detect {name} looks anew and lists them");
            return Err(ClientError::local(ErrorKind::NotFound, "NO_SUGGESTION", &message, "", &hint));
        };
        chosen.push(one.clone());
    }
    Ok(chosen)
}

async fn apply_one(apply: &Apply, one: &Suggestion, session: &mut Session<'_>) -> Result<(), ClientError> {
    if one.kind == "present" {
        return Ok(());
    }
    let accepted = ask(apply, one, session).await?;
    if apply.dry_run {
        return wait::plan(session, &accepted);
    }
    wait::finish(session, accepted, &apply.wait).await
}

async fn ask(apply: &Apply, one: &Suggestion, session: &Session<'_>) -> Result<CertificateAccepted, ClientError> {
    if one.kind == "target" {
        let request = AddTargetRequest {
            certificate: one.certificate.clone(),
            target: one.target.clone(),
            request_id: proto::id::random_id(),
            dry_run: apply.dry_run,
            ..Default::default()
        };
        return session.client.add_target(request).await;
    }
    let issuer = match &apply.issuer {
        Some(issuer) => issuer.clone(),
        None => only_issuer(session).await?,
    };
    let request = CreateCertificateRequest {
        request_id: proto::id::random_id(),
        name: one.certificate.clone(),
        identifiers: one.identifiers.clone(),
        issuer,
        http01: one.http01.clone(),
        target: one.target.clone(),
        dry_run: apply.dry_run,
        ..Default::default()
    };
    session.client.create_certificate(request).await
}

async fn only_issuer(session: &Session<'_>) -> Result<String, ClientError> {
    let issuers = session.client.list_issuers(ListIssuersRequest {}).await?.items;
    match issuers.as_slice() {
        [one] => Ok(one.name.clone()),
        [] => Err(invalid("there is no issuer yet", "certwright issuers add NAME --directory URL adds one")),
        several => {
            let names: Vec<&str> = several.iter().map(|issuer| issuer.name.as_str()).collect();
            Err(invalid("there are several issuers", &format!("choose with --issuer: {}", names.join(", "))))
        }
    }
}
