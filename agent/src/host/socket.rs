//! TCP for `RealHost`: no delay, both address families. Knows no protocol.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

use super::{Connection, Incoming};

/// Connections the kernel may queue: several vantage points of a CA come at once.
const BACKLOG: u32 = 128;
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Longest try of one address: two retransmissions of the first packet.
const ADDRESS_TIME_MAX: Duration = Duration::from_secs(3);

/// Tries each address of the name, with a limit of its own: one that swallows packets (IPv6 announced but not routed,
/// most often) must not eat the time of the others. The caller limits the whole.
pub(super) async fn connect(address: &str) -> io::Result<Box<dyn Connection>> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for one in lookup_host(address).await?.take(ADDRESSES_MAX) {
        match timeout(ADDRESS_TIME_MAX, TcpStream::connect(one)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(Box::new(stream));
            }
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Listens on `[::]` (which takes IPv4 as well), or on `0.0.0.0` where the kernel has no IPv6.
pub(super) fn bind(port: u16) -> io::Result<Box<dyn Incoming>> {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let both = TcpSocket::new_v6().and_then(|socket| {
        // Whatever net.ipv6.bindv6only says: the CA may come over IPv4.
        set_ipv6_v6only(&socket, false)?;
        listen(&v6, socket)
    });
    let listener = match both {
        Ok(listener) => listener,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
        Err(_) => listen(&v4, TcpSocket::new_v4()?)?,
    };
    Ok(Box::new(Listener(listener)))
}

fn listen(address: &SocketAddr, socket: TcpSocket) -> io::Result<TcpListener> {
    socket.set_reuseaddr(true)?;
    socket.bind(*address)?;
    socket.listen(BACKLOG)
}

struct Listener(TcpListener);

#[async_trait]
impl Incoming for Listener {
    async fn accept(&mut self) -> io::Result<Box<dyn Connection>> {
        let (stream, _) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
