//! A network connection in memory between two programs, each on its own power switch. When one is killed, the other
//! reads what was already sent and then the end, as with a killed process under TCP.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{PowerSwitch, Step};

/// Bytes under way in one direction, like a socket buffer.
const BUFFER: usize = 256 * 1024;

/// One end of a connection.
pub struct Pipe {
    stream: DuplexStream,
    switch: PowerSwitch,
    cut_here: Pin<Box<WaitForCancellationFutureOwned>>,
    cut_there: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Pipe {
    /// Connects two programs.
    #[must_use]
    pub fn pair(a: &PowerSwitch, b: &PowerSwitch) -> (Self, Self) {
        let (left, right) = tokio::io::duplex(BUFFER);
        (Self::end(left, a, b), Self::end(right, b, a))
    }

    fn end(stream: DuplexStream, here: &PowerSwitch, there: &PowerSwitch) -> Self {
        Self {
            stream,
            switch: here.clone(),
            cut_here: Box::pin(here.off().cancelled_owned()),
            cut_there: Box::pin(there.off().cancelled_owned()),
        }
    }

    fn is_cut_here(&mut self, cx: &mut Context<'_>) -> bool {
        self.cut_here.as_mut().poll(cx).is_ready()
    }

    fn is_cut_there(&mut self, cx: &mut Context<'_>) -> bool {
        self.cut_there.as_mut().poll(cx).is_ready()
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipe(..)")
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_cut_here(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending if self.is_cut_there(cx) => Poll::Ready(Ok(())),
            polled => polled,
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_cut_here(cx) || !self.switch.step(Step::NetworkWrite) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.is_cut_there(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut_here(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_killed_end_leaves_what_it_sent_and_then_the_end() {
        let (mine, theirs) = (PowerSwitch::new(), PowerSwitch::new());
        let (mut a, mut b) = Pipe::pair(&mine, &theirs);
        a.write_all(b"sent").await.unwrap();
        mine.cut();
        assert!(a.write_all(b"never").await.is_err());
        let mut read = Vec::new();
        b.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"sent");
        assert_eq!(b.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_reader_wakes_when_the_other_end_is_killed() {
        let (mine, theirs) = (PowerSwitch::new(), PowerSwitch::new());
        let (_a, mut b) = Pipe::pair(&mine, &theirs);
        let mut buf = [0; 1];
        let (read, ()) = tokio::join!(b.read(&mut buf), async { mine.cut() });
        assert_eq!(read.unwrap(), 0);
    }
}
