//! What an agent found on its server when it looked last. Called by `rpc` and `store`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The last picture of an agent's server. Key in the store: `agent_id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detected {
    /// Whose server.
    pub agent_id: String,
    /// When it looked.
    pub at: Timestamp,
    /// The agent's version by then.
    pub agent_version: String,
    /// `types.v1.Picture`, sanitised, base64.
    pub picture: String,
}
