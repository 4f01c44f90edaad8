//! Seals a long text in chunks, so that neither side holds all of it: AES-256-GCM under a key of its own, each chunk bound to
//! its number and to whether it is the last, so that none can be changed, moved, taken out or cut off. Called by
//! `store/backup`.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead as _, Nonce, Payload};
use secrecy::{ExposeSecret as _, SecretBox};
use zeroize::Zeroizing;

use super::super::master_key::KEY_LEN;
use super::{NONCE_LEN, cipher};

/// Plain bytes of every chunk but the last.
pub(in crate::store) const CHUNK: usize = 64 << 10;
/// What a chunk is longer by when it is sealed.
pub(in crate::store) const TAG_LEN: usize = 16;

/// One direction of a stream. Its key is used for nothing else, so the nonce can be the chunk's number.
pub(in crate::store) struct Chunks {
    cipher: Aes256Gcm,
    bound_to: Vec<u8>,
    number: u64,
}

impl Chunks {
    pub(in crate::store) fn new(key: &SecretBox<[u8; KEY_LEN]>, bound_to: &[u8]) -> Self {
        Self { cipher: cipher(key.expose_secret()), bound_to: bound_to.to_vec(), number: 0 }
    }

    /// Seals the next chunk.
    pub(in crate::store) fn seal(&mut self, plain: &[u8], last: bool) -> Vec<u8> {
        let payload = Payload { msg: plain, aad: &self.bound_to };
        let sealed = self.cipher.encrypt(&self.nonce(last), payload);
        self.number += 1;
        sealed.expect("AES-GCM seals everything below 64 GiB")
    }

    /// Opens the next chunk; `None` when it is not that one.
    pub(in crate::store) fn open(&mut self, sealed: &[u8], last: bool) -> Option<Zeroizing<Vec<u8>>> {
        let payload = Payload { msg: sealed, aad: &self.bound_to };
        let opened = self.cipher.decrypt(&self.nonce(last), payload).ok()?;
        self.number += 1;
        Some(Zeroizing::new(opened))
    }

    /// The number in big-endian, and whether it is the last.
    fn nonce(&self, last: bool) -> Nonce<Aes256Gcm> {
        let mut nonce = [0_u8; NONCE_LEN];
        let (number, rest) = nonce.split_at_mut(size_of::<u64>());
        number.copy_from_slice(&self.number.to_be_bytes());
        rest.fill(u8::from(last));
        Nonce::<Aes256Gcm>::from(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::master_key::random_key;
    use super::*;

    #[test]
    fn a_chunk_opens_only_at_its_place() {
        let key = random_key();
        let mut seal = Chunks::new(&key, b"header");
        let sealed = [seal.seal(b"one", false), seal.seal(b"two", false), seal.seal(b"", true)];
        let open = |order: &[(usize, bool)]| {
            let mut chunks = Chunks::new(&key, b"header");
            order.iter().all(|(number, last)| chunks.open(&sealed[*number], *last).is_some())
        };
        assert!(open(&[(0, false), (1, false), (2, true)]));
        for wrong in [&[(1, false)][..], &[(0, true)], &[(0, false), (2, true)], &[(0, false), (1, true)]] {
            assert!(!open(wrong), "{wrong:?}");
        }
        assert!(Chunks::new(&key, b"another").open(&sealed[0], false).is_none());
        assert!(Chunks::new(&random_key(), b"header").open(&sealed[0], false).is_none());
    }
}
