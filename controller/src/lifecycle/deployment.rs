//! From the targets' statuses to the certificate's: design §2, certificate.deployment.

use super::target::Status;

/// A certificate's deployment over all its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deployment {
    /// No target.
    None,
    /// At least one target has no outcome for the current version yet, and none failed.
    Pending,
    /// Every target is proven.
    Ok,
    /// Some are proven; the others failed, or cannot be proven.
    Partial,
    /// None is proven and at least one failed.
    Failed,
}

impl Deployment {
    /// Every deployment.
    pub const ALL: [Self; 5] = [Self::None, Self::Pending, Self::Ok, Self::Partial, Self::Failed];

    /// Adds up the statuses. An unproven target is never ok: with it the best is partial.
    #[must_use]
    pub fn of(statuses: impl IntoIterator<Item = Status>) -> Self {
        let (mut applied, mut unproven, mut pending, mut failed) = (0_u32, 0_u32, 0_u32, 0_u32);
        for status in statuses {
            match status {
                Status::Applied => applied += 1,
                Status::Unproven => unproven += 1,
                Status::Pending => pending += 1,
                Status::NotLive | Status::RolledBack | Status::Failed | Status::NeedsOperator | Status::Drifted => {
                    failed += 1
                }
            }
        }
        match (applied, unproven, pending, failed) {
            (0, 0, 0, 0) => Self::None,
            (_, _, 1.., 0) => Self::Pending,
            (1.., 0, 0, 0) => Self::Ok,
            (0, 0, _, 1..) => Self::Failed,
            _ => Self::Partial,
        }
    }

    /// The snake-case word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Ok => "ok",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unproven_target_is_never_ok_and_one_failure_does_not_hide_success() {
        use Status::{Applied, Failed, NotLive, Pending, Unproven};
        let check = |statuses: &[Status], expected| {
            assert_eq!(Deployment::of(statuses.iter().copied()), expected, "{statuses:?}")
        };
        check(&[], Deployment::None);
        check(&[Applied, Applied], Deployment::Ok);
        check(&[Applied, Unproven], Deployment::Partial);
        check(&[Unproven], Deployment::Partial);
        check(&[Applied, Pending], Deployment::Pending);
        check(&[Applied, NotLive], Deployment::Partial);
        check(&[Failed, Pending], Deployment::Failed);
        check(&[NotLive], Deployment::Failed);
    }
}
