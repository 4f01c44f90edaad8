//! Why an action cannot be taken now: hints and help show it dim with this reason, the palette refuses it, and a key that
//! is pressed all the same says it. Pure. Called by `app::act`, `app::layer` and `view`.
#![allow(clippy::wildcard_enum_match_arm, reason = "most actions can always be taken")]

use proto::method::WHILE_RESTORE_WAITS;

use crate::app::many::are_meant;
use crate::app::{Model, trust};
use crate::keys::{Action, Binding, Context};
use crate::screens::team::Member;
use crate::screens::{self, audit, restore, team};

/// Returns why what a row of the key table does cannot be done now; `None` when it can.
pub(crate) fn why(model: &Model, row: &Binding) -> Option<String> {
    if row.action == Action::GoAudit {
        return audit::denied(model);
    }
    if row.danger == 0 {
        return None;
    }
    model.read_only().or_else(|| needs(model, row)).or_else(|| held(model, row)).or_else(|| {
        match model.place_context() {
            Context::Certificates | Context::Certificate => of_certificate(model, row.action),
            Context::Agents | Context::Agent => of_agent(model, row.action),
            Context::Issuers | Context::Issuer => of_issuer(model, row.action),
            Context::Jobs | Context::Job => of_job(model, row.action),
            Context::Team => of_member(model, row.action),
            Context::Restore => trust::of_restore(model),
            Context::IdentityCa => trust::of_rotation(model, row.action),
            _ => None,
        }
    })
}

/// The role that is missing, as the controller said it when we connected.
fn needs(model: &Model, row: &Binding) -> Option<String> {
    let rpc = rpc(model, row)?;
    let denied = model.who.as_ref()?.denied.iter().find(|denied| denied.rpc == rpc)?;
    Some(format!("needs {}", denied.needs))
}

/// What the controller refuses before a restore is accepted.
fn held(model: &Model, row: &Binding) -> Option<String> {
    let may = |rpc| WHILE_RESTORE_WAITS.iter().any(|method| method.name() == rpc);
    let stays = row.id != "pause.all" && rpc(model, row).is_none_or(may);
    (restore::waits(model) && !stays).then(|| "a restore waits (gr)".to_owned())
}

/// Returns the RPC behind a row of the key table.
fn rpc(model: &Model, row: &Binding) -> Option<&'static str> {
    Some(match row.id {
        "new" => "CreateCertificate",
        "run" => "RenewCertificate",
        "deploy" => "DeployCertificate",
        "delete" => "DeleteCertificate",
        "revoke.version" if are_meant(model) => "ActOnCertificates",
        "revoke.version" => "RevokeCertificate",
        "pause" | "pause.all" => "SetPause",
        "edit" if screens::target_here(model).is_some() => "SetTarget",
        "edit" if model.place_context() == Context::Certificate => "UpdateCertificate",
        "edit" if model.issuer.shows_limits() && model.place_context() == Context::Issuer => "SetLimits",
        "edit" => "SetIssuer",
        "enroll" => "EnrollAgent",
        "revoke" => "RevokeAgent",
        "consent" => "ConsentAgent",
        "detect" => "DetectAgent",
        "issuer.new" => "AddIssuer",
        "test" => "TestIssuer",
        "target.test" => "TestTargets",
        "challenges" => "CheckChallenges",
        "rollover" => "RolloverAccount",
        "remove" => "RemoveIssuer",
        "invite" => "InviteOperator",
        "role" => "SetOperatorRole",
        "operator.remove" => "RemoveOperator",
        "restore.accept" => "AcceptRestore",
        "backup" => "CreateBackup",
        "identity-ca.prepare" | "identity-ca.activate" | "identity-ca.retire" | "identity-ca.abort" => {
            "RotateIdentityCa"
        }
        "rekey" | "retry" => "ActOnCertificates",
        "job.cancel" => "CancelJob",
        _ => return None,
    })
}

fn of_agent(model: &Model, action: Action) -> Option<String> {
    let record = screens::agent_here(model)?;
    match action {
        Action::Test if record.status != "connected" => Some(format!("it is {}", record.status)),
        Action::Consent if record.status != "expired" => Some("its identity has not ended".to_owned()),
        _ => None,
    }
}

fn of_issuer(model: &Model, action: Action) -> Option<String> {
    let record = screens::issuer_here(model)?;
    let account = record.account_status.as_str();
    match action {
        Action::Test | Action::Edit if account == "removed" => Some("it was removed before the restore".to_owned()),
        Action::Test if record.checking => Some("it is being tried".to_owned()),
        Action::Rollover if account == "none" => Some("it has no account yet".to_owned()),
        Action::Rollover if account == "rolling" => Some("it is on its way".to_owned()),
        Action::Rollover if account != "valid" => Some(format!("the account is {account}")),
        Action::Delete if record.certificates > 0 => Some(format!("{} certificate(s) use it", record.certificates)),
        _ => None,
    }
}

fn of_job(model: &Model, action: Action) -> Option<String> {
    let job = screens::job_here(model)?;
    let ended = job.finished_at > 0;
    match action {
        Action::Cancel if ended => Some("it has ended".to_owned()),
        Action::Run if job.kind == "deploy" => Some("agents repeat a deployment by themselves".to_owned()),
        Action::Run if job.state == "succeeded" => Some("nothing failed".to_owned()),
        _ => None,
    }
}

fn of_member(model: &Model, action: Action) -> Option<String> {
    match (team::member_here(model)?, action) {
        (Member::Operator(one), Action::Edit | Action::Delete) if one.kind == team::BUILT_IN => {
            Some(format!("{} is always an owner", one.name))
        }
        (Member::Invited(_), Action::Edit) => Some("not logged in yet".to_owned()),
        _ => None,
    }
}

fn of_certificate(model: &Model, action: Action) -> Option<String> {
    let said = |text: &str| Some(text.to_owned());
    // What cannot be done to some of the marked ones is said in the question.
    if are_meant(model) && matches!(action, Action::Run | Action::Rekey | Action::RevokeVersion) {
        return None;
    }
    // Without a record under the cursor the question itself says so.
    let record = screens::certificate_here(model)?;
    match action {
        Action::Run
        | Action::Rekey
        | Action::Deploy
        | Action::Pause
        | Action::Edit
        | Action::Test
        | Action::Challenges
            if record.deleting =>
        {
            said("it is being deleted")
        }
        Action::Deploy if screens::version_to_deploy(model).is_some_and(|version| !version.deployable) => {
            said("its key is gone, it is revoked, or too little of its life is left")
        }
        Action::Deploy if record.current.is_none() => said("there is no version yet"),
        Action::Deploy | Action::Test if record.targets.is_empty() => said("it has no target"),
        Action::RevokeVersion => match screens::version_here(model) {
            None => said("there is no version yet"),
            Some(version) if version.revoked_at != 0 => said("it is revoked already"),
            Some(_) => None,
        },
        _ => None,
    }
}
