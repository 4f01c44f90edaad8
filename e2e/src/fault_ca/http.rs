//! As much of HTTP/1.1 as the fault CA speaks, by hand: a server that can also break it. Called by `fault_ca`.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Largest body of a request.
const BODY_BYTES_MAX: u64 = 1024 * 1024;
/// Pause between two bytes of a body that never ends.
const DRIP: Duration = Duration::from_millis(500);

/// A request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    content_type: String,
    body: Bytes,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    /// 0: the connection is closed without a word.
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Whole(Bytes),
    /// So many bytes of rubbish.
    Long(u64),
    /// A byte now and then, for ever.
    Drip,
    /// No answer at all, and the connection stays open.
    Never,
}

impl From<Bytes> for Content {
    fn from(body: Bytes) -> Self {
        Self::Whole(body)
    }
}

impl Reply {
    pub(super) fn silent() -> Self {
        Self { status: 0, headers: Vec::new(), body: Bytes::new().into() }
    }
}

impl Asked {
    /// First part of the path.
    pub(super) fn kind(&self) -> &str {
        self.path.split('/').nth(1).unwrap_or_default()
    }

    pub(super) fn request(&self, base: &str) -> Request<Bytes> {
        let builder = Request::builder().method(self.method.as_str()).uri(format!("{base}{}", self.path));
        let builder = builder.header("Content-Type", &self.content_type);
        builder.body(self.body.clone()).expect("it was parsed from a request")
    }
}

/// Reads the next request of a connection; `None` at its end.
pub(super) async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Asked>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head).await? == 0 || head.len() > HEAD_BYTES_MAX {
            return Ok(None);
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let header = |name: &str| {
        let found =
            head.lines().filter_map(|line| line.split_once(':')).find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.trim()).to_owned()
    };
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let length: u64 = header("content-length").parse().unwrap_or(0);
    let mut body = Vec::new();
    stream.take(length.min(BODY_BYTES_MAX)).read_to_end(&mut body).await?;
    Ok(Some(Asked { method, path, content_type: header("content-type"), body: body.into() }))
}

/// Writes an answer.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), asked: &Asked, reply: Reply) -> io::Result<()> {
    if let Content::Never = reply.body {
        return std::future::pending().await;
    }
    if reply.status == 0 {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let mut head = format!("HTTP/1.1 {} Fault\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match &reply.body {
        Content::Whole(body) => head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len())),
        Content::Long(length) => head.push_str(&format!("Content-Length: {length}\r\n\r\n")),
        Content::Drip | Content::Never => head.push_str("Content-Length: 1000000\r\n\r\n"),
    }
    stream.write_all(head.as_bytes()).await?;
    match reply.body {
        Content::Whole(body) if asked.method != "HEAD" => stream.write_all(&body).await?,
        Content::Long(length) => {
            let chunk = [b'x'; 4096];
            for _ in 0..length.div_ceil(4096) {
                stream.write_all(&chunk).await?;
            }
        }
        Content::Drip => loop {
            stream.write_all(b" ").await?;
            stream.flush().await?;
            tokio::time::sleep(DRIP).await;
        },
        Content::Whole(_) | Content::Never => {}
    }
    stream.flush().await
}

/// Adds a line to a log, in one write.
pub(super) fn append(path: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())
}
