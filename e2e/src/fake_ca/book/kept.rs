//! What the books keep over a restart of the CA. Nonces are not kept, as at every CA.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Book;
use crate::fake_ca::authority::Authority;

impl Book {
    /// Returns it as JSON.
    pub(in crate::fake_ca) fn kept(&self) -> Value {
        json!({
            "accounts": self.accounts,
            "orders": self.orders,
            "authorizations": self.authorizations,
            "certificates": self.certificates,
            "authority": self.authority.kept(),
            "nonces_given": self.nonces_given,
        })
    }

    /// Takes up what `kept` returned.
    pub(in crate::fake_ca) fn take_up(&mut self, kept: &Value) -> Result<(), serde_json::Error> {
        self.accounts = part(kept, "accounts")?;
        self.orders = part(kept, "orders")?;
        self.authorizations = part(kept, "authorizations")?;
        self.certificates = part(kept, "certificates")?;
        self.authority = Authority::again(part(kept, "authority")?);
        self.nonces_given = part(kept, "nonces_given")?;
        Ok(())
    }
}

fn part<T: DeserializeOwned>(kept: &Value, name: &str) -> Result<T, serde_json::Error> {
    T::deserialize(&kept[name])
}
