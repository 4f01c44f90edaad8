//! `pause` and `resume`: one certificate, or everything (the kill switch).

use clap::Args;
use proto::operator::v1::SetPauseRequest;

use super::certs;
use super::session::Session;
use crate::client::ClientError;
use crate::output::{Format, pause, safe};

#[derive(Args, Debug)]
pub(crate) struct PauseAll {
    /// Everything: no orders and no deployments until `certwright resume --all`
    #[arg(long, required = true)]
    all: bool,
    /// Why, for those who find nothing moving
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Args, Debug)]
pub(crate) struct ResumeAll {
    /// Everything that `certwright pause --all` holds; a certificate with a pause of its own stays paused
    #[arg(long, required = true)]
    all: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PauseOne {
    name: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

pub(super) async fn pause_all(pause: PauseAll, session: &mut Session<'_>) -> Result<(), ClientError> {
    all(SetPauseRequest { certificate: String::new(), paused: pause.all, reason: pause.reason }, session).await
}

pub(super) async fn resume_all(resume: ResumeAll, session: &mut Session<'_>) -> Result<(), ClientError> {
    all(SetPauseRequest { certificate: String::new(), paused: !resume.all, reason: String::new() }, session).await
}

async fn all(request: SetPauseRequest, session: &mut Session<'_>) -> Result<(), ClientError> {
    let answer = session.client.set_pause(request).await?;
    let now = session.now();
    let text = match (session.format, &answer.pause) {
        (Format::Json, _) => pause::json(&answer),
        (_, Some(held)) => format!(
            "everything is {}\nnothing is ordered and nothing is deployed until `certwright resume --all`\n",
            pause::words(held, now)
        ),
        (_, None) => "everything goes on\n".to_owned(),
    };
    session.console.print(&text)
}

pub(super) async fn pause(one: PauseOne, session: &mut Session<'_>) -> Result<(), ClientError> {
    let request = SetPauseRequest { certificate: one.name, paused: true, reason: one.reason };
    single(request, session).await
}

pub(super) async fn resume(name: String, session: &mut Session<'_>) -> Result<(), ClientError> {
    single(SetPauseRequest { certificate: name, paused: false, reason: String::new() }, session).await
}

async fn single(request: SetPauseRequest, session: &mut Session<'_>) -> Result<(), ClientError> {
    let answer = session.client.set_pause(request).await?;
    let Some(record) = &answer.certificate else { return Ok(()) };
    let name = safe(&record.name);
    match &record.pause {
        Some(held) if answer.pause.is_none() && held.all => {
            session.console.note(&format!("{name} stays still: everything is paused (certwright resume --all)"));
        }
        Some(_) => session.console.note(&format!("{name} is paused; `certwright certs resume {name}` lifts it")),
        None => session.console.note(&format!("{name} goes on")),
    }
    certs::show(record, session)
}
