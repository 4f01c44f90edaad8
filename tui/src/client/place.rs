//! Where the controller is: its socket on this host, or its port elsewhere under a login. Called by `client` and `main`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::login::Login;

/// Where to connect to.
#[derive(Clone, Debug)]
pub enum Place {
    /// A Unix socket on this host: the kernel says who calls.
    Socket(PathBuf),
    /// The controller's port, with the key and leaf of a login.
    Remote(Arc<Login>),
}

/// What stands in messages, and tells which advice fits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Address<'a> {
    /// The path of a socket.
    Socket(&'a Path),
    /// `HOST:PORT`.
    Port(&'a str),
}

impl Place {
    pub(super) fn address(&self) -> Address<'_> {
        match self {
            Self::Socket(path) => Address::Socket(path),
            Self::Remote(login) => Address::Port(&login.controller),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Port(address) => f.write_str(address),
        }
    }
}
