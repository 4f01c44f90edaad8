//! A network connection in memory between two programs, each on its own power switch. When one is killed, the other
//! reads what was already sent and then the end, as with a killed process under TCP.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{PowerSwitch, Step};

/// Bytes under way in one direction, like a socket buffer.
const BUFFER: usize = 256 * 1024;

/// A host's way to the network: while it is cut, what is sent waits, as TCP would send it again.
#[derive(Clone, Debug, Default)]
pub struct Cable(Arc<Mutex<CableState>>);

#[derive(Debug, Default)]
struct CableState {
    cut: bool,
    waiting: Vec<Waker>,
}

impl Cable {
    fn state(&self) -> MutexGuard<'_, CableState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the cable, or mends it.
    pub fn set_cut(&self, cut: bool) {
        let mut state = self.state();
        state.cut = cut;
        if !cut {
            state.waiting.drain(..).for_each(Waker::wake);
        }
    }

    /// Whether it is cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.state().cut
    }

    fn blocks(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state();
        if state.cut {
            state.waiting.push(cx.waker().clone());
        }
        state.cut
    }
}

/// One end of a connection.
pub struct Pipe {
    stream: DuplexStream,
    cables: Vec<Cable>,
    switch: PowerSwitch,
    cut_here: Pin<Box<WaitForCancellationFutureOwned>>,
    cut_there: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Pipe {
    /// Connects two programs.
    #[must_use]
    pub fn pair(a: &PowerSwitch, b: &PowerSwitch, cables: &[Cable]) -> (Self, Self) {
        let (left, right) = tokio::io::duplex(BUFFER);
        (Self::end(left, a, b, cables), Self::end(right, b, a, cables))
    }

    fn end(stream: DuplexStream, here: &PowerSwitch, there: &PowerSwitch, cables: &[Cable]) -> Self {
        Self {
            stream,
            cables: cables.to_vec(),
            switch: here.clone(),
            cut_here: Box::pin(here.off().cancelled_owned()),
            cut_there: Box::pin(there.off().cancelled_owned()),
        }
    }

    fn is_blocked(&self, cx: &Context<'_>) -> bool {
        self.cables.iter().any(|cable| cable.blocks(cx))
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
        if self.is_blocked(cx) {
            return Poll::Pending;
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
        if self.is_blocked(cx) {
            return Poll::Pending;
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
        let (mut a, mut b) = Pipe::pair(&mine, &theirs, &[]);
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
        let (_a, mut b) = Pipe::pair(&mine, &theirs, &[]);
        let mut buf = [0; 1];
        let (read, ()) = tokio::join!(b.read(&mut buf), async { mine.cut() });
        assert_eq!(read.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_into_a_cut_cable_arrives_when_it_is_mended() {
        let (mine, theirs, cable) = (PowerSwitch::new(), PowerSwitch::new(), Cable::default());
        let (mut a, mut b) = Pipe::pair(&mine, &theirs, std::slice::from_ref(&cable));
        cable.set_cut(true);
        let mut read = [0; 4];
        let mended = async {
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            cable.set_cut(false);
        };
        let (sent, received, ()) = tokio::join!(a.write_all(b"late"), b.read_exact(&mut read), mended);
        sent.unwrap();
        received.unwrap();
        assert_eq!(&read, b"late");
    }
}
