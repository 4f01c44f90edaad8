//! What a deployment would meet on this server's disk: policy, owners, key, directory, files, the programs of its commands.
//! Changes nothing, and tells nothing of a place that the policy does not allow. Called by `Room::perform`.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::files::trial::{look, version};
use super::request::{LookOver, LookedOver};
use super::{Room, keys, webroot, written};
use crate::plan::trial::{Check, DIRECTORY, FILE, HTTP01, KEY, POLICY, RELOAD};
use crate::policy::Policy;
use crate::problem::Problem;
use crate::target::Target;

/// Said of what a refusal stands before.
const REFUSED: &str = "the policy does not allow it";

impl Room {
    pub(super) async fn look_over(self: Arc<Self>, asked: LookOver) -> Result<LookedOver, Problem> {
        let policy = self.policy.current()?;
        let reload = asked.target.reload.clone();
        let (room, with) = (Arc::clone(&self), Arc::clone(&policy));
        let looked = spawn_blocking(move || room.look_at_disk(&with, &asked)).await;
        let mut found =
            looked.unwrap_or_else(|error| Err(Problem::internal(&format!("a look at the disk: {error}"))))?;
        for argv in reload {
            found.checks.push(self.program(&policy, &argv).await);
        }
        Ok(found)
    }

    fn look_at_disk(&self, policy: &Policy, asked: &LookOver) -> Result<LookedOver, Problem> {
        let LookOver { target, not_before, webroot } = asked;
        // Never in the middle of a switch of ours.
        let _writing = self.turn();
        let (root, refusals) = policy.judge(target);
        let mut found = LookedOver::default();
        if refusals.is_empty() {
            let path = root.map(|root| root.path.as_str()).unwrap_or_default();
            found.checks.push(Check::ok(POLICY, &policy.source, &format!("it allows all of it, by [[dir]] {path}")));
        }
        found.checks.extend(refusals.into_iter().map(|problem| Check::failed(POLICY, &policy.source, problem)));
        let there = match root {
            Some(root) => {
                let looked = look(target, root, written::load(&self.state, &target.id)?.as_ref());
                found.checks.extend(looked.checks);
                found.is_complete = looked.is_complete;
                looked.leaf
            }
            None => {
                found.checks.push(Check::skipped(DIRECTORY, &target.dir, REFUSED));
                let path = |name: String| format!("{}/{name}", target.dir);
                let skipped = target.names().into_iter().map(|name| Check::skipped(FILE, &path(name), REFUSED));
                found.checks.extend(skipped);
                None
            }
        };
        found.leaf = there.as_ref().map(|leaf| leaf.fingerprint_sha256);
        found.checks.push(version(target, there.as_ref(), *not_before));
        found.checks.extend(self.key(target));
        found.checks.extend(webroot.as_ref().map(|path| answers(policy, path)));
        Ok(found)
    }

    fn key(&self, target: &Target) -> Option<Check> {
        target.version.as_ref()?;
        let Some(slot) = &target.key_slot_id else {
            return Some(Check::ok(KEY, "", "the controller keeps it, and hands it out with the version"));
        };
        Some(match keys::read(&self.state, slot) {
            Ok(_) => Check::ok(KEY, slot, "it was made here and is held here"),
            Err(problem) => Check::failed(KEY, slot, problem),
        })
    }

    /// A reload is not run; a program that is not there would end it.
    async fn program(&self, policy: &Policy, argv: &[String]) -> Check {
        let subject = argv.join(" ");
        let program = argv.first().map_or("", String::as_str);
        if policy.permit_command(argv).is_err() {
            return Check::skipped(RELOAD, &subject, REFUSED);
        }
        match self.host.cannot_run(program).await {
            None => Check::ok(RELOAD, &subject, "it is not run by a test; its program can be started"),
            Some(cause) => {
                let hint = "install the program, or name the right path in the policy and in the target";
                let message = format!("{program} cannot be started");
                Check::failed(RELOAD, &subject, Problem::new("COMMAND_MISSING", message, cause, hint))
            }
        }
    }
}

/// Whether challenges could be answered by files.
fn answers(policy: &Policy, path: &str) -> Check {
    let looked = policy.permit_webroot(path).and_then(|()| webroot::try_place(path));
    match looked {
        Ok(()) => Check::ok(HTTP01, path, "the answers to challenges can be written there"),
        Err(problem) => Check::failed(HTTP01, path, problem),
    }
}
