//! The operators' RPCs: each line routes to `rpc/operator`. Who calls is decided in `rpc/peer` before anything here runs.

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use proto::clock::to_wire;
use proto::method::Method;
use proto::operator::v1 as wire;
use proto::operator::v1::operator_service_server::OperatorService;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::audited;
use super::convert;
use super::login;
use super::operator::{
    agents, audit, backup, bulk, certificates, challenges, create, detected, identity_ca, issuers, limits, lists,
    operators, overview, pause, private_ca, restore, revoke, targets, wishes,
};
use super::peer::{OperatorCaller, Peer, operator_caller, recheck_operator};
use super::roles::denied;
use super::serve::Server;
use super::status::Refusal;
use crate::tasks::hub::Hub;

/// Serves operators.
#[derive(Debug)]
pub(crate) struct OperatorApi {
    pub(crate) server: Server,
}

/// A client hears at least this often, so that it knows the line is alive.
const TICK: Duration = Duration::from_secs(5);
/// Changes within this are told once.
const BURST: Duration = Duration::from_millis(15);

type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::WatchResponse, Status>> + Send>>;

/// Runs one call and wraps its answer.
macro_rules! answer {
    ($future:expr) => {
        Ok(Response::new($future.await?))
    };
}

/// Runs one call that changes something between the audit's two lines about it, and wraps its answer.
macro_rules! act {
    ($self:ident, $request:ident, $method:ident, |$caller:ident, $asked:ident| $future:expr) => {{
        let $caller = &operator_caller(&$request)?;
        let $asked = $request.into_inner();
        let hub = &$self.server.hub;
        let begun = audited::begin(hub, $caller, Method::$method, &$asked).await?;
        let came = $future.await;
        audited::end(hub, begun, &came).await;
        Ok(Response::new(came?))
    }};
}

/// The same for what reads a record, decides and writes it.
macro_rules! act_anew {
    ($self:ident, $request:ident, $method:ident, |$caller:ident, $asked:ident| $future:expr) => {
        act!($self, $request, $method, |$caller, $asked| wishes::anew($asked, |$asked| $future))
    };
}

#[tonic::async_trait]
impl OperatorService for OperatorApi {
    type WatchStream = WatchStream;
    type CreateBackupStream = backup::Parts;

    async fn whoami(&self, request: Request<wire::WhoamiRequest>) -> Result<Response<wire::WhoamiResponse>, Status> {
        let caller = operator_caller(&request)?;
        let denied = denied(caller.role);
        let identity_not_after = match caller.peer() {
            Peer::Tls(Some(leaf), _) => to_wire(Some(leaf.not_after)),
            Peer::Tls(None, _) | Peer::Local(_) => 0,
        };
        Ok(Response::new(wire::WhoamiResponse {
            denied: denied
                .map(|(method, needs)| wire::Denied { rpc: method.name().to_owned(), needs: needs.word().to_owned() })
                .collect(),
            identity_not_after,
            operator: caller.name,
            role: caller.role.word().to_owned(),
            controller_version: env!("CARGO_PKG_VERSION").to_owned(),
            controller_name: self.server.installation.name.clone(),
            advertise: self.server.installation.advertise.clone().unwrap_or_default(),
            mail: self.server.installation.mail.words(),
        }))
    }

    async fn get_overview(
        &self,
        _request: Request<wire::GetOverviewRequest>,
    ) -> Result<Response<wire::GetOverviewResponse>, Status> {
        answer!(overview::overview(&self.server.hub))
    }

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Result<Response<WatchStream>, Status> {
        let hub = self.server.hub.clone();
        let line = Line {
            caller: operator_caller(&request)?,
            revision: hub.store.revision(),
            touched: hub.presence.touched(),
            hub,
            stop: self.server.stop.clone(),
            first: true,
        };
        Ok(Response::new(Box::pin(unfold(line, next_change))))
    }

    async fn list_certificates(
        &self,
        request: Request<wire::ListCertificatesRequest>,
    ) -> Result<Response<wire::ListCertificatesResponse>, Status> {
        answer!(lists::certificates(&self.server.hub, request.into_inner()))
    }

    async fn get_certificate(
        &self,
        request: Request<wire::GetCertificateRequest>,
    ) -> Result<Response<wire::Certificate>, Status> {
        answer!(lists::certificate(&self.server.hub, &request.get_ref().name))
    }

    async fn create_certificate(
        &self,
        request: Request<wire::CreateCertificateRequest>,
    ) -> Result<Response<wire::CertificateAccepted>, Status> {
        act_anew!(self, request, OperatorCreateCertificate, |caller, asked| {
            create::create(&self.server.hub, caller, asked)
        })
    }

    async fn update_certificate(
        &self,
        request: Request<wire::UpdateCertificateRequest>,
    ) -> Result<Response<wire::CertificateAccepted>, Status> {
        act_anew!(self, request, OperatorUpdateCertificate, |caller, asked| {
            certificates::update(&self.server.hub, caller, asked)
        })
    }

    async fn renew_certificate(
        &self,
        request: Request<wire::RenewCertificateRequest>,
    ) -> Result<Response<wire::CertificateAccepted>, Status> {
        act_anew!(self, request, OperatorRenewCertificate, |caller, asked| {
            certificates::renew(&self.server.hub, caller, asked)
        })
    }

    async fn revoke_certificate(
        &self,
        request: Request<wire::RevokeCertificateRequest>,
    ) -> Result<Response<wire::CertificateAccepted>, Status> {
        act_anew!(self, request, OperatorRevokeCertificate, |caller, asked| {
            revoke::revoke(&self.server.hub, caller, asked)
        })
    }

    async fn deploy_certificate(
        &self,
        request: Request<wire::DeployCertificateRequest>,
    ) -> Result<Response<wire::CertificateAccepted>, Status> {
        act_anew!(self, request, OperatorDeployCertificate, |caller, asked| {
            targets::deploy(&self.server.hub, caller, asked)
        })
    }

    async fn delete_certificate(
        &self,
        request: Request<wire::DeleteCertificateRequest>,
    ) -> Result<Response<wire::DeleteCertificateResponse>, Status> {
        act_anew!(self, request, OperatorDeleteCertificate, |caller, asked| {
            certificates::delete(&self.server.hub, caller, asked)
        })
    }

    async fn set_pause(
        &self,
        request: Request<wire::SetPauseRequest>,
    ) -> Result<Response<wire::SetPauseResponse>, Status> {
        act!(self, request, OperatorSetPause, |caller, asked| { pause::set(&self.server.hub, caller, asked) })
    }

    async fn add_target(
        &self,
        request: Request<wire::AddTargetRequest>,
    ) -> Result<Response<wire::CertificateAccepted>, Status> {
        act_anew!(self, request, OperatorAddTarget, |caller, asked| { targets::add(&self.server.hub, caller, asked) })
    }

    async fn remove_target(
        &self,
        request: Request<wire::RemoveTargetRequest>,
    ) -> Result<Response<wire::CertificateAccepted>, Status> {
        act_anew!(self, request, OperatorRemoveTarget, |caller, asked| {
            targets::remove(&self.server.hub, caller, asked)
        })
    }

    async fn set_target(
        &self,
        request: Request<wire::SetTargetRequest>,
    ) -> Result<Response<wire::CertificateAccepted>, Status> {
        act_anew!(self, request, OperatorSetTarget, |caller, asked| {
            targets::set::set(&self.server.hub, caller, asked)
        })
    }

    async fn test_targets(
        &self,
        request: Request<wire::TestTargetsRequest>,
    ) -> Result<Response<wire::TestTargetsResponse>, Status> {
        act!(self, request, OperatorTestTargets, |_caller, asked| targets::trial::test(&self.server.hub, asked))
    }

    async fn check_challenges(
        &self,
        request: Request<wire::CheckChallengesRequest>,
    ) -> Result<Response<wire::CheckChallengesResponse>, Status> {
        act!(self, request, OperatorCheckChallenges, |_caller, asked| challenges::check(&self.server, asked))
    }

    async fn list_versions(
        &self,
        request: Request<wire::ListVersionsRequest>,
    ) -> Result<Response<wire::ListVersionsResponse>, Status> {
        answer!(lists::versions(&self.server.hub, &request.get_ref().certificate))
    }

    async fn list_agents(
        &self,
        request: Request<wire::ListAgentsRequest>,
    ) -> Result<Response<wire::ListAgentsResponse>, Status> {
        answer!(agents::list(&self.server.hub, request.into_inner()))
    }

    async fn get_agent(&self, request: Request<wire::GetAgentRequest>) -> Result<Response<wire::Agent>, Status> {
        answer!(agents::one(&self.server.hub, &request.get_ref().name))
    }

    async fn enroll_agent(
        &self,
        request: Request<wire::EnrollAgentRequest>,
    ) -> Result<Response<wire::EnrollAgentResponse>, Status> {
        act!(self, request, OperatorEnrollAgent, |caller, asked| { agents::enroll(&self.server, caller, asked) })
    }

    async fn get_identity_ca(
        &self,
        _request: Request<wire::GetIdentityCaRequest>,
    ) -> Result<Response<wire::IdentityCa>, Status> {
        Ok(Response::new(identity_ca::view(&self.server).await?))
    }

    async fn rotate_identity_ca(
        &self,
        request: Request<wire::RotateIdentityCaRequest>,
    ) -> Result<Response<wire::IdentityCa>, Status> {
        act!(self, request, OperatorRotateIdentityCa, |caller, asked| {
            identity_ca::rotate(&self.server, caller, asked)
        })
    }

    async fn consent_agent(
        &self,
        request: Request<wire::ConsentAgentRequest>,
    ) -> Result<Response<wire::Agent>, Status> {
        act!(self, request, OperatorConsentAgent, |caller, asked| {
            agents::consent(&self.server.hub, caller, &asked.name)
        })
    }

    async fn set_agent(&self, request: Request<wire::SetAgentRequest>) -> Result<Response<wire::Agent>, Status> {
        act_anew!(self, request, OperatorSetAgent, |caller, asked| { agents::set(&self.server.hub, caller, asked) })
    }

    async fn get_detected(
        &self,
        request: Request<wire::GetDetectedRequest>,
    ) -> Result<Response<wire::Detected>, Status> {
        answer!(detected::get(&self.server.hub, &request.into_inner().name))
    }

    async fn detect_agent(
        &self,
        request: Request<wire::DetectAgentRequest>,
    ) -> Result<Response<wire::Detected>, Status> {
        act!(self, request, OperatorDetectAgent, |_caller, asked| detected::ask(&self.server.hub, &asked.name))
    }

    async fn revoke_agent(&self, request: Request<wire::RevokeAgentRequest>) -> Result<Response<wire::Agent>, Status> {
        act!(self, request, OperatorRevokeAgent, |caller, asked| {
            agents::revoke(&self.server.hub, caller, &asked.name)
        })
    }

    async fn forget_agent(
        &self,
        request: Request<wire::ForgetAgentRequest>,
    ) -> Result<Response<wire::ForgetAgentResponse>, Status> {
        act!(self, request, OperatorForgetAgent, |caller, asked| {
            agents::forget(&self.server.hub, caller, &asked.name)
        })
    }

    async fn list_issuers(
        &self,
        _request: Request<wire::ListIssuersRequest>,
    ) -> Result<Response<wire::ListIssuersResponse>, Status> {
        answer!(issuers::list(&self.server.hub))
    }

    async fn get_issuer(&self, request: Request<wire::GetIssuerRequest>) -> Result<Response<wire::Issuer>, Status> {
        answer!(issuers::one(&self.server.hub, &request.get_ref().name))
    }

    async fn get_revocation_list(
        &self,
        request: Request<wire::GetRevocationListRequest>,
    ) -> Result<Response<wire::RevocationList>, Status> {
        answer!(private_ca::list(&self.server.hub, &request.get_ref().issuer))
    }

    async fn add_issuer(&self, request: Request<wire::AddIssuerRequest>) -> Result<Response<wire::Issuer>, Status> {
        act!(self, request, OperatorAddIssuer, |caller, asked| { issuers::add(&self.server.hub, caller, asked) })
    }

    async fn remove_issuer(
        &self,
        request: Request<wire::RemoveIssuerRequest>,
    ) -> Result<Response<wire::RemoveIssuerResponse>, Status> {
        act!(self, request, OperatorRemoveIssuer, |caller, asked| {
            issuers::remove(&self.server.hub, caller, &asked.name)
        })
    }

    async fn set_issuer(&self, request: Request<wire::SetIssuerRequest>) -> Result<Response<wire::Issuer>, Status> {
        act!(self, request, OperatorSetIssuer, |caller, asked| { issuers::set(&self.server.hub, caller, asked) })
    }

    async fn test_issuer(&self, request: Request<wire::TestIssuerRequest>) -> Result<Response<wire::Issuer>, Status> {
        act!(self, request, OperatorTestIssuer, |caller, asked| {
            issuers::test(&self.server.hub, caller, &asked.name)
        })
    }

    async fn list_limits(
        &self,
        request: Request<wire::ListLimitsRequest>,
    ) -> Result<Response<wire::ListLimitsResponse>, Status> {
        answer!(limits::list(&self.server.hub, &request.get_ref().issuer))
    }

    async fn set_limits(
        &self,
        request: Request<wire::SetLimitsRequest>,
    ) -> Result<Response<wire::ListLimitsResponse>, Status> {
        act!(self, request, OperatorSetLimits, |caller, asked| { limits::set(&self.server.hub, caller, asked) })
    }

    async fn rollover_account(
        &self,
        request: Request<wire::RolloverAccountRequest>,
    ) -> Result<Response<wire::Issuer>, Status> {
        act!(self, request, OperatorRolloverAccount, |caller, asked| {
            issuers::roll_over(&self.server.hub, caller, &asked.name)
        })
    }

    async fn list_operators(
        &self,
        _request: Request<wire::ListOperatorsRequest>,
    ) -> Result<Response<wire::ListOperatorsResponse>, Status> {
        answer!(operators::list(&self.server.hub))
    }

    async fn add_operator(
        &self,
        request: Request<wire::AddOperatorRequest>,
    ) -> Result<Response<wire::AddOperatorResponse>, Status> {
        act!(self, request, OperatorAddOperator, |caller, asked| { operators::add(&self.server.hub, caller, asked) })
    }

    async fn invite_operator(
        &self,
        request: Request<wire::InviteOperatorRequest>,
    ) -> Result<Response<wire::InviteOperatorResponse>, Status> {
        act!(self, request, OperatorInviteOperator, |caller, asked| { operators::invite(&self.server, caller, asked) })
    }

    async fn set_operator_role(
        &self,
        request: Request<wire::SetOperatorRoleRequest>,
    ) -> Result<Response<wire::Operator>, Status> {
        act!(self, request, OperatorSetOperatorRole, |caller, asked| {
            operators::set_role(&self.server.hub, caller, asked)
        })
    }

    async fn remove_operator(
        &self,
        request: Request<wire::RemoveOperatorRequest>,
    ) -> Result<Response<wire::RemoveOperatorResponse>, Status> {
        act!(self, request, OperatorRemoveOperator, |caller, asked| {
            operators::remove(&self.server.hub, caller, &asked.name)
        })
    }

    async fn login(&self, request: Request<wire::LoginRequest>) -> Result<Response<wire::LoginResponse>, Status> {
        answer!(login::login(&self.server, request.into_inner()))
    }

    async fn renew_login(
        &self,
        request: Request<wire::RenewLoginRequest>,
    ) -> Result<Response<wire::LoginResponse>, Status> {
        let caller = operator_caller(&request)?;
        answer!(login::renew(&self.server, &caller, request.into_inner()))
    }

    async fn list_audit(
        &self,
        request: Request<wire::ListAuditRequest>,
    ) -> Result<Response<wire::ListAuditResponse>, Status> {
        if request.get_ref().export && request.get_ref().from_seq == 0 {
            act!(self, request, OperatorListAudit, |_caller, asked| audit::list(&self.server.hub, asked))
        } else {
            answer!(audit::list(&self.server.hub, request.into_inner()))
        }
    }

    async fn create_backup(
        &self,
        request: Request<wire::CreateBackupRequest>,
    ) -> Result<Response<backup::Parts>, Status> {
        let caller = operator_caller(&request)?;
        let asked = request.into_inner();
        let begun = audited::begin(&self.server.hub, &caller, Method::OperatorCreateBackup, &asked).await?;
        Ok(Response::new(backup::create(&self.server, &caller, begun, asked).await?))
    }

    async fn get_restore(
        &self,
        _request: Request<wire::GetRestoreRequest>,
    ) -> Result<Response<wire::GetRestoreResponse>, Status> {
        answer!(restore::status(&self.server.hub))
    }

    async fn accept_restore(
        &self,
        request: Request<wire::AcceptRestoreRequest>,
    ) -> Result<Response<wire::GetRestoreResponse>, Status> {
        act!(self, request, OperatorAcceptRestore, |caller, asked| restore::accept(&self.server.hub, caller, asked))
    }

    async fn list_jobs(
        &self,
        request: Request<wire::ListJobsRequest>,
    ) -> Result<Response<wire::ListJobsResponse>, Status> {
        answer!(lists::jobs(&self.server.hub, request.into_inner()))
    }

    async fn get_job(&self, request: Request<wire::GetJobRequest>) -> Result<Response<wire::Job>, Status> {
        answer!(lists::job(&self.server.hub, &request.get_ref().id))
    }

    async fn cancel_job(&self, request: Request<wire::CancelJobRequest>) -> Result<Response<wire::Job>, Status> {
        act!(self, request, OperatorCancelJob, |caller, asked| bulk::cancel(&self.server.hub, caller, &asked.id))
    }

    async fn act_on_certificates(
        &self,
        request: Request<wire::ActOnCertificatesRequest>,
    ) -> Result<Response<wire::ActOnCertificatesResponse>, Status> {
        act!(self, request, OperatorActOnCertificates, |caller, asked| bulk::act(&self.server.hub, caller, asked))
    }

    async fn list_events(
        &self,
        request: Request<wire::ListEventsRequest>,
    ) -> Result<Response<wire::ListEventsResponse>, Status> {
        answer!(lists::events(&self.server.hub, request.into_inner()))
    }
}

/// An open watch.
struct Line {
    caller: OperatorCaller,
    hub: Hub,
    revision: watch::Receiver<u64>,
    touched: watch::Receiver<u64>,
    stop: CancellationToken,
    first: bool,
}

/// Waits for a change in the store or among the agents, or for the tick. `None` ends the stream.
async fn next_change(mut line: Line) -> Option<(Result<wire::WatchResponse, Status>, Line)> {
    if !std::mem::take(&mut line.first) {
        // Every arm is cancel-safe.
        let changed = tokio::select! {
            biased;
            () = line.stop.cancelled() => return None,
            changed = line.revision.changed() => { changed.ok()?; true }
            changed = line.touched.changed() => { changed.ok()?; true }
            () = tokio::time::sleep(TICK) => false,
        };
        if changed {
            tokio::time::sleep(BURST).await;
        }
    }
    // Whoever lost their role meanwhile is cut.
    if let Err(refusal) = recheck_operator(&line.hub, &line.caller).await {
        return Some((Err(refusal.into()), line));
    }
    // What memory holds has no revision of its own: views are asked for again after every message.
    line.touched.borrow_and_update();
    let revision = *line.revision.borrow_and_update();
    let pause = match line.hub.store.pause_all().await {
        Ok(pause) => pause.map(|pause| convert::pause(&pause, true)),
        Err(error) => return Some((Err(Refusal::from(error).into()), line)),
    };
    Some((Ok(wire::WatchResponse { revision, server_at: to_wire(Some(line.hub.now())), pause }), line))
}
