//! Speaks a protocol in plain text as far as TLS (STARTTLS): carries bytes between a connection and `preamble`, which
//! decides. Believes nothing it reads; bounded in bytes there and in time here. Called by `verify`.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::preamble::{Preamble, Refusal, Turn};
use crate::target::Protocol;

/// All of the plain text: a server on the same host answers at once, and the handshake has a limit of its own.
pub(super) const PREAMBLE: Duration = Duration::from_secs(5);
const CHUNK_BYTES: usize = 1024;

/// Brings a fresh connection to the point where the next byte of either side belongs to TLS.
///
/// # Errors
/// When the server does not go along: with its words, or with what was wrong.
pub(super) async fn negotiate(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    protocol: Protocol,
    name: &ServerName<'_>,
) -> Result<(), Refusal> {
    let Some((preamble, opening)) = Preamble::begin(protocol, name) else { return Ok(()) };
    match timeout(PREAMBLE, talk(stream, preamble, &opening)).await {
        Ok(done) => done,
        Err(_) => Err(Refusal::Late),
    }
}

async fn talk(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    mut preamble: Preamble,
    opening: &[u8],
) -> Result<(), Refusal> {
    say(stream, opening).await?;
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        let read = stream.read(&mut chunk).await.map_err(Refusal::Broken)?;
        let mut unread = chunk.get(..read).unwrap_or_default();
        if unread.is_empty() {
            return Err(preamble.closed());
        }
        while !unread.is_empty() {
            let (turn, rest) = preamble.feed(unread)?;
            unread = rest;
            match turn {
                Turn::Wait => {}
                Turn::Send(bytes) => say(stream, &bytes).await?,
                Turn::Ready => return Ok(()),
            }
        }
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Refusal> {
    stream.write_all(bytes).await.map_err(Refusal::Broken)?;
    stream.flush().await.map_err(Refusal::Broken)
}

#[cfg(test)]
mod tests;
