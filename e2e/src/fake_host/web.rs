//! A plain web server on port 80 of a simulated machine: GET of files below a folder, nothing else. It stands for the
//! nginx whose webroot an agent may write to.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::power::pipe::Pipe;
use crate::sim_net::Listener;

/// Largest request.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Serves `folder` until the set is dropped.
pub(super) async fn serve(mut listener: Listener, folder: PathBuf) {
    let mut visitors = JoinSet::new();
    while let Some(pipe) = listener.accept().await {
        visitors.spawn(answer(pipe, folder.clone()));
        while visitors.try_join_next().is_some() {}
    }
}

async fn answer(mut pipe: Pipe, folder: PathBuf) {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        match pipe.read(&mut chunk).await {
            Ok(count) if count > 0 => request.extend_from_slice(&chunk[..count]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let path = text.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let found = if path.contains("..") { None } else { std::fs::read(folder.join(path)).ok() };
    let (status, body) = found.map_or_else(|| ("404 Not Found", b"<h1>404</h1>".to_vec()), |body| ("200 OK", body));
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    if pipe.write_all(head.as_bytes()).await.is_ok() && pipe.write_all(&body).await.is_ok() {
        drop(pipe.shutdown().await);
    }
}
