//! TCP for `RealHost`: no delay, both address families. Knows no protocol.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{Connection, Incoming};

/// Connections the kernel may queue: several vantage points of a CA come at once.
const BACKLOG: u32 = 128;

pub(super) async fn connect(address: &str) -> io::Result<Box<dyn Connection>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// Listens on `[::]` (which takes IPv4 as well), or on `0.0.0.0` where the kernel has no IPv6.
pub(super) fn bind(port: u16) -> io::Result<Box<dyn Incoming>> {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener = match TcpSocket::new_v6().and_then(|socket| listen(&v6, socket)) {
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
