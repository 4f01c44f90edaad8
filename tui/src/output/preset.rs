//! The services that `--preset` knows, as a table and as JSON. Pure; the data is `proto::presets`. Called by `targets presets`.

use proto::presets::{PRESETS, Preset};
use proto::types::v1::FileContent;
use serde::Serialize;

use super::table::Table;
use crate::client::{default_mode, file_content, holds_key};

#[derive(Debug, Serialize)]
struct PresetView {
    name: &'static str,
    label: &'static str,
    dir: &'static str,
    files: Vec<FileView>,
    owner: Option<&'static str>,
    validate: Vec<&'static str>,
    reload: Vec<&'static str>,
    verify: &'static str,
    configure: String,
}

#[derive(Debug, Serialize)]
struct FileView {
    content: &'static str,
    name: &'static str,
    mode: String,
}

impl From<&Preset> for PresetView {
    fn from(preset: &Preset) -> Self {
        let file = |(content, name): &(FileContent, &'static str)| FileView {
            content: file_content((*content).into()),
            name,
            mode: format!("{:04o}", if holds_key(*content) { preset.key_mode } else { default_mode(*content) }),
        };
        Self {
            name: preset.name,
            label: preset.label,
            dir: preset.dir,
            files: preset.files.iter().map(file).collect(),
            owner: Some(preset.owner).filter(|owner| !owner.is_empty()),
            validate: preset.validate.to_vec(),
            reload: preset.reload.to_vec(),
            verify: preset.verify,
            configure: preset.configuration(preset.dir),
        }
    }
}

/// Returns every service as a JSON list.
pub(crate) fn json_list() -> String {
    super::json_list("PresetList", PRESETS.iter().map(PresetView::from).collect())
}

/// Returns every service as a table; `wide` adds what its configuration must say.
pub(crate) fn table(wide: bool) -> Table {
    let mut head = vec!["NAME", "DIR", "FILES", "OWNER", "VALIDATE", "RELOAD", "VERIFY"];
    if wide {
        head.push("CONFIGURE");
    }
    let mut table = Table::new(&head);
    for view in PRESETS.iter().map(PresetView::from) {
        let files = view.files.iter().map(|file| format!("{}={} {}", file.content, file.name, file.mode));
        let files = files.collect::<Vec<_>>().join(", ");
        let owner = view.owner.unwrap_or_default().to_owned();
        let mut row = vec![
            view.name.to_owned(),
            view.dir.to_owned(),
            files,
            owner,
            view.validate.join(" "),
            view.reload.join(" "),
            view.verify.to_owned(),
        ];
        if wide {
            row.push(view.configure);
        }
        table.row(row);
    }
    table
}
