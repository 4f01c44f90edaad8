//! A draft filled in from what an agent found on its server: every field can be changed before anything is sent.

use proto::operator::v1::{Agent, Suggestion, TargetSpec};
use proto::presets::Preset;
use proto::types::v1::http01::Mode;

use super::{LISTEN, WEBROOT, Wizard, request};
use crate::client::{content_of, file_content, holds_key};

impl Wizard {
    /// Returns a draft of the certificate and target that `one` suggests for `agent`.
    pub(crate) fn suggested(one: &Suggestion, agent: &Agent) -> Self {
        let mut wizard = Self::new();
        let spec = one.target.clone().unwrap_or_default();
        wizard.form_of(0).set("identifiers", &one.identifiers.join(" "));
        wizard.form_of(0).set("name", &one.certificate);
        let way = match one.http01.as_ref().and_then(|http01| http01.mode.clone()) {
            Some(Mode::Webroot(dir)) => {
                wizard.form_of(1).set("http01_webroot", &dir);
                WEBROOT
            }
            Some(Mode::StandalonePort(port)) => {
                wizard.form_of(1).set("http01_port", &port.to_string());
                LISTEN
            }
            None => LISTEN,
        };
        wizard.choose(1, "http01", way);
        wizard.suggested_commands =
            spec.validate.iter().chain(&spec.reload).map(|one| request::joined(&one.argv)).collect();
        wizard.offer_agents(std::slice::from_ref(agent));
        wizard.choose(3, "agent", &agent.name);
        if let Some(preset) = Preset::named(&one.preset) {
            wizard.choose(3, "service", preset.label);
        }
        wizard.follow();
        wizard.fill_target(&spec);
        wizard.touched = true;
        wizard
    }

    fn choose(&mut self, step: usize, id: &str, option: &str) {
        if let Some(field) = self.form_of(step).field_mut(id) {
            field.choose(option);
        }
    }

    fn fill_target(&mut self, spec: &TargetSpec) {
        let files: Vec<String> =
            spec.files.iter().map(|file| format!("{}={}", file_content(file.content), file.name)).collect();
        let is_key = |content: i32| content_of(file_content(content)).is_some_and(holds_key);
        let key = spec.files.iter().find(|file| is_key(file.content));
        let other = spec.files.iter().find(|file| !is_key(file.content));
        let lines = |commands: &[proto::types::v1::Command]| {
            commands.iter().map(|one| request::joined(&one.argv)).collect::<Vec<_>>()
        };
        let verify: Vec<String> = spec.verify.iter().map(ToString::to_string).collect();
        let (validate, reload) = (lines(&spec.validate), lines(&spec.reload));
        let form = self.form_of(3);
        form.set("dir", &spec.dir);
        form.set("files", &files.join(" "));
        // The form has one owner for all files: the key's, who must be able to read it.
        form.set("owner", key.map_or("", |file| file.owner.as_str()));
        form.set("mode", &format!("{:04o}", other.map_or(0o644, |file| file.mode)));
        form.set("key_mode", &format!("{:04o}", key.map_or(0o600, |file| file.mode)));
        form.set("verify", &verify.join(" "));
        form.pick("validate", &validate);
        form.pick("reload", &reload);
    }
}
