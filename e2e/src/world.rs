//! The simulated world: one controller, agents on machines, an operator at the socket, a CA, DNS and the network between
//! them, all on one paused clock. Programs can be killed at any counted step and started again on what they had synced.
//! The scenarios in tests/sim build one world each.

pub mod operator;
mod oracle;
pub mod program;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use proto::clock::Clock;
use proto::operator::v1 as api;

use self::operator::Operator;
use self::program::{AgentSite, ControllerSite};
use crate::fake_ca::{FakeCa, Options};
use crate::fake_dns::FakeDns;
use crate::fake_host::Machine;
use crate::power::PowerSwitch;
use crate::power::disk::Unsynced;
use crate::sim_clock::SimClock;
use crate::sim_net::{PublicView, SimNet};

/// Name of the issuer that every world starts with.
pub const ISSUER: &str = "lab";
/// How long a killed program stays away before it is started again.
const DOWNTIME: Duration = Duration::from_secs(3);

/// Everything there is.
#[derive(Debug)]
pub struct World {
    /// The time.
    pub clock: Arc<SimClock>,
    /// The network.
    pub net: SimNet,
    /// The names.
    pub dns: FakeDns,
    /// The certificate authority.
    pub ca: FakeCa,
    /// The controller's host.
    pub controller: ControllerSite,
    /// The agents' hosts: h1, h2, …
    pub agents: Vec<AgentSite>,
    /// The operator.
    pub operator: Operator,
}

/// How a world begins.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many machines with an enrolled, running agent.
    pub agents: usize,
    /// How the CA behaves by choice.
    pub ca: Options,
    /// What a power cut leaves of unsynced writes of the controller.
    pub unsynced: Unsynced,
}

impl Default for Plan {
    fn default() -> Self {
        Self { agents: 1, ca: Options::default(), unsynced: Unsynced::Lost }
    }
}

impl World {
    /// A running controller with the issuer "lab", and so many enrolled and running agents.
    pub async fn new(agents: usize) -> Self {
        Self::begin(Plan { agents, ..Plan::default() }).await
    }

    /// A world as planned.
    pub async fn begin(plan: Plan) -> Self {
        let mut world = Self::dark(plan);
        world.controller.start();
        world.add_issuer(ISSUER).await;
        for index in 0..plan.agents {
            world.enroll(index).await;
            world.agents[index].start();
        }
        world
            .settle("the agents are connected", Duration::from_secs(60), async |world| {
                let agents = world.operator.agents().await;
                agents.len() == plan.agents && agents.iter().all(|agent| agent.status == "connected")
            })
            .await;
        world
    }

    /// A world in which nothing runs yet.
    #[must_use]
    pub fn dark(plan: Plan) -> Self {
        oracle::watch_logs();
        let clock = Arc::new(SimClock::new());
        let (net, dns) = (SimNet::default(), FakeDns::default());
        let view = Arc::new(PublicView { net: net.clone(), dns: dns.clone() });
        let ca = FakeCa::new(plan.ca, clock.clone(), view);
        let controller = ControllerSite::new(plan.unsynced, clock.clone(), &net, &dns, &ca);
        let agents = (1..=plan.agents)
            .map(|number| {
                let address = IpAddr::V4(Ipv4Addr::new(10, 0, 1, u8::try_from(number).expect("few agents")));
                AgentSite::new(Machine::new(&format!("h{number}"), address, &net, &dns), clock.clone())
            })
            .collect();
        let operator = Operator::new(&net, PowerSwitch::new());
        Self { clock, net, dns, ca, controller, agents, operator }
    }

    /// Adds an issuer that is the fake CA, and waits until the controller has it.
    pub async fn add_issuer(&mut self, name: &str) {
        let request = api::AddIssuerRequest {
            name: name.to_owned(),
            directory: FakeCa::directory_url(),
            root_pem: self.ca.root_pem(),
            email: "ops@example.test".to_owned(),
            accept_terms: true,
            ..Default::default()
        };
        self.settle("the issuer is added", Duration::from_secs(60), async |world| {
            match world.operator.client().add_issuer(request.clone()).await {
                Ok(_) => true,
                Err(status) => status.code() == tonic::Code::AlreadyExists,
            }
        })
        .await;
    }

    /// Enrols the agent of a machine; it does not run yet.
    pub async fn enroll(&mut self, index: usize) {
        let name = self.agents[index].machine.name().to_owned();
        let request = api::EnrollAgentRequest { name, replace: false };
        let token = self.operator.client().enroll_agent(request).await.expect("a join token").into_inner().token;
        self.agents[index].enroll(&token.into()).await.expect("the agent enrols");
    }

    /// Clones a machine: another one, with a copy of its agent's state and policy. Its agent does not run yet. Returns its
    /// number among the agents.
    ///
    /// # Panics
    /// When the state cannot be copied.
    pub fn clone_machine(&mut self, index: usize) -> usize {
        let copy = self.bare_machine();
        self.agents[index].copy_state(&self.agents[copy].state_dir());
        copy
    }

    /// Adds a machine whose agent is not enrolled. Returns its number among the agents.
    ///
    /// # Panics
    /// When there are too many.
    pub fn bare_machine(&mut self) -> usize {
        let number = u8::try_from(self.agents.len() + 1).expect("few agents");
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 1, number));
        let machine = Machine::new(&format!("h{number}"), address, &self.net, &self.dns);
        self.agents.push(AgentSite::new(machine, self.clock.clone()));
        self.agents.len() - 1
    }

    /// Starts again whatever was killed by plan or ended by itself, as a service manager does.
    pub async fn revive(&mut self) {
        let agents_down: Vec<_> = self.agents.iter_mut().map(AgentSite::is_down).collect();
        let controller_down = self.controller.is_down();
        if !controller_down && !agents_down.contains(&true) {
            return;
        }
        tokio::time::sleep(DOWNTIME).await;
        if controller_down {
            self.controller.kill().await;
            self.controller.start();
        }
        for (agent, down) in self.agents.iter_mut().zip(agents_down) {
            if down {
                agent.kill().await;
                agent.start();
            }
        }
    }

    /// Lets time pass until `done`, at most `limit`; starts killed programs again meanwhile.
    ///
    /// # Panics
    /// When the limit passes first; the message holds what the operator sees.
    pub async fn settle(&mut self, what: &str, limit: Duration, done: impl AsyncFn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + limit;
        let mut pause = Duration::from_millis(20);
        loop {
            self.revive().await;
            if done(self).await {
                return;
            }
            if tokio::time::Instant::now() >= deadline {
                panic!("not within {limit:?}: {what}\n{}", self.picture().await);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min((limit / 200).max(Duration::from_secs(2)));
        }
    }

    /// Waits until a certificate is active, deployed and proven everywhere, with no order wanted or under way.
    pub async fn settle_live(&mut self, name: &str, limit: Duration) -> api::Certificate {
        self.settle(&format!("{name} is live"), limit, async |world| world.is_live(name).await).await;
        let seen = std::cell::RefCell::new(None);
        self.settle("the operator reads it", limit, async |world| {
            let certificate = world.operator.certificate(name).await;
            *seen.borrow_mut() = certificate;
            seen.borrow().is_some()
        })
        .await;
        seen.into_inner().expect("settled on it")
    }

    /// Whether a certificate is active, deployed and proven everywhere, with no order wanted or under way.
    pub async fn is_live(&self, name: &str) -> bool {
        let Some(certificate) = self.operator.certificate(name).await else { return false };
        // A wish that no order has taken up yet is not idle either.
        let is_wanted = certificate.reasons.iter().any(|reason| reason.holds);
        let idle = !is_wanted && certificate.order.as_ref().is_none_or(|order| order.phase == "completed");
        certificate.status == "active" && certificate.deployment == "ok" && idle
    }

    /// Returns the current instant in Unix milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.clock.now().as_millisecond()
    }
}
