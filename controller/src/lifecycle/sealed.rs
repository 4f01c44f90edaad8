//! A sealed secret as records carry it: opaque here, made and opened only by `store/seal`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// AES-256-GCM ciphertext with what is needed to open it again. All fields are base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Which data key of the keyring.
    pub key_id: String,
    /// 96-bit nonce.
    pub nonce: String,
    /// Ciphertext and tag.
    pub ciphertext: String,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(..)")
    }
}
