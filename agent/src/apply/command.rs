//! Runs reload commands: only an argv that the policy holds, one run at a time of the same one. No shell, ever.

use std::sync::{Arc, PoisonError};

use super::Room;
use crate::host::CommandOutcome;
use crate::problem::Problem;

impl Room {
    pub(super) async fn run(&self, argv: &[String]) -> Result<CommandOutcome, Problem> {
        let timeout = self.policy.current()?.permit_command(argv)?;
        let turn = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(running.entry(argv.to_vec()).or_default())
        };
        let _turn = turn.lock().await;
        Ok(self.host.run(argv, timeout).await)
    }
}
