//! The network of the simulation: addresses to which programs bind and connect, in memory. A host can be down; a killed
//! program's ports are free again. It knows no protocol but the one HTTP request with which a CA or the controller looks
//! at port 80. `fake_host` and `world` use it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use controller::preflight::probe::{Probe, ProbeAnswer, ProbeError, Scheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::fake_ca::Validator;
use crate::fake_dns::FakeDns;
use crate::power::PowerSwitch;
use crate::power::pipe::{Cable, Pipe};

/// Connections waiting to be accepted.
const BACKLOG: usize = 128;
/// How long a CA waits for a host (Let's Encrypt: 10 s).
const LOOK_TIME_MAX: Duration = Duration::from_secs(10);
/// Time from SYN to SYN-ACK.
const ROUND_TRIP: Duration = Duration::from_millis(2);
/// Most of an HTTP answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Address of the controller's host.
pub const CONTROLLER_HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// Address from which the CA looks.
const CA_HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The network. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimNet(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    ports: BTreeMap<SocketAddr, Port>,
    cables: BTreeMap<IpAddr, Cable>,
    made: u64,
}

#[derive(Debug)]
struct Port {
    number: u64,
    holder: String,
    switch: PowerSwitch,
    queue: mpsc::Sender<(Pipe, IpAddr)>,
}

/// A bound port; dropping it closes the port.
#[derive(Debug)]
pub struct Listener {
    net: SimNet,
    address: SocketAddr,
    number: u64,
    queue: mpsc::Receiver<(Pipe, IpAddr)>,
}

impl SimNet {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the cable of a host: while it is cut, the host reaches only itself.
    #[must_use]
    pub fn cable(&self, host: IpAddr) -> Cable {
        self.inner().cables.entry(host).or_default().clone()
    }

    /// Binds a port for a program.
    ///
    /// # Errors
    /// When a living program holds it.
    pub fn bind(&self, address: SocketAddr, holder: &str, switch: &PowerSwitch) -> io::Result<Listener> {
        let mut inner = self.inner();
        if inner.ports.get(&address).is_some_and(|port| !port.switch.is_off()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        inner.made += 1;
        let number = inner.made;
        let (sender, queue) = mpsc::channel(BACKLOG);
        let port = Port { number, holder: holder.to_owned(), switch: switch.clone(), queue: sender };
        inner.ports.insert(address, port);
        Ok(Listener { net: self.clone(), address, number, queue })
    }

    /// Returns who holds a port.
    #[must_use]
    pub fn holder(&self, address: SocketAddr) -> Option<String> {
        let inner = self.inner();
        let port = inner.ports.get(&address).filter(|port| !port.switch.is_off());
        port.map(|port| port.holder.clone())
    }

    /// Connects a program on the host `from` to an address. Hangs when a cable between them is cut.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(&self, from: IpAddr, address: SocketAddr, switch: &PowerSwitch) -> io::Result<Pipe> {
        tokio::time::sleep(ROUND_TRIP).await;
        let cables = match address.ip() {
            to if to == from => Vec::new(),
            to => vec![self.cable(from), self.cable(to)],
        };
        if cables.iter().any(Cable::is_cut) {
            return std::future::pending().await;
        }
        let (ours, queue) = {
            let inner = self.inner();
            let Some(port) = inner.ports.get(&address).filter(|port| !port.switch.is_off()) else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let (ours, theirs) = Pipe::pair(switch, &port.switch, &cables);
            let queue = port.queue.clone().try_reserve_owned();
            (ours, queue.map(|permit| permit.send((theirs, from))))
        };
        match queue {
            Ok(_) => Ok(ours),
            Err(_full) => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    async fn get(&self, from: IpAddr, address: SocketAddr, host: &str, path: &str) -> io::Result<ProbeAnswer> {
        let mut pipe = self.connect(from, address, &PowerSwitch::new()).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        pipe.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        pipe.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let location = head.lines().find_map(|line| line.strip_prefix("location: ")).map(str::to_owned);
        Ok(ProbeAnswer { status: status.ok_or(io::ErrorKind::InvalidData)?, location, body: bytes[end + 4..].to_vec() })
    }
}

impl Listener {
    /// Returns the next connection.
    pub async fn accept(&mut self) -> Option<Pipe> {
        self.accept_from().await.map(|(pipe, _)| pipe)
    }

    /// Returns the next connection, and the host it comes from.
    pub async fn accept_from(&mut self) -> Option<(Pipe, IpAddr)> {
        self.queue.recv().await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut inner = self.net.inner();
        if inner.ports.get(&self.address).is_some_and(|port| port.number == self.number) {
            inner.ports.remove(&self.address);
        }
    }
}

/// Looks at port 80 as a CA does: through public DNS, from several places, each taking another of the name's addresses.
#[derive(Clone, Debug)]
pub struct PublicView {
    /// Where the hosts are.
    pub net: SimNet,
    /// What the names say.
    pub dns: FakeDns,
}

#[async_trait]
impl Validator for PublicView {
    async fn get(&self, vantage: usize, host: &str, path: &str) -> Result<String, (String, String)> {
        let addresses = self.dns.resolve(host).map_err(|error| ("dns".to_owned(), format!("{host}: {error}")))?;
        let address = SocketAddr::new(addresses[vantage % addresses.len()], 80);
        let refusal =
            |kind: &str, why: &str| (kind.to_owned(), format!("{address}: Fetching http://{host}{path}: {why}"));
        match timeout(LOOK_TIME_MAX, self.net.get(CA_HOST, address, host, path)).await {
            Err(_elapsed) => Err(refusal("connection", "Timeout during connect (likely firewall problem)")),
            Ok(Err(error)) => Err(refusal("connection", &error.to_string())),
            Ok(Ok(answer)) if answer.status != 200 => {
                Err(refusal("unauthorized", &format!("Invalid response: {}", answer.status)))
            }
            Ok(Ok(answer)) => Ok(String::from_utf8_lossy(&answer.body).into_owned()),
        }
    }
}

/// The controller's own look at port 80, ended with the controller.
#[derive(Clone, Debug)]
pub struct SimProbe {
    /// Where the hosts are.
    pub net: SimNet,
    /// The controller's life.
    pub switch: PowerSwitch,
}

#[async_trait]
impl Probe for SimProbe {
    async fn fetch(
        &self,
        scheme: Scheme,
        address: SocketAddr,
        host: &str,
        path: &str,
    ) -> Result<ProbeAnswer, ProbeError> {
        if scheme == Scheme::Https {
            return Err(ProbeError::Unreachable(io::ErrorKind::ConnectionRefused.into()));
        }
        match self.switch.run(timeout(LOOK_TIME_MAX / 2, self.net.get(CONTROLLER_HOST, address, host, path))).await {
            Err(_elapsed) => Err(ProbeError::Timeout),
            Ok(answer) => answer.map_err(ProbeError::Unreachable),
        }
    }
}
