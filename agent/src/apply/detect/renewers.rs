//! Other programs that renew certificates here: certbot and acme.sh, by what they keep.

use super::files::Files;
use crate::detect::{Renewer, renewer};

/// Most lineages of one program.
const LINEAGES_MAX: usize = 400;
const CERTBOT: &str = "/etc/letsencrypt/renewal/*.conf";
const ACME_SH: &str = "/root/.acme.sh";
/// What starts certbot: a timer that is enabled, a cron job, a snap's timer.
const CERTBOT_STARTS: [&str; 3] = [
    "/etc/systemd/system/timers.target.wants/certbot.timer",
    "/etc/systemd/system/timers.target.wants/certbot-renew.timer",
    "/etc/systemd/system/timers.target.wants/snap.certbot.renew.timer",
];
const CERTBOT_CRON: &str = "/etc/cron.d/certbot";
const CRONTABS: [&str; 2] = ["/var/spool/cron/crontabs/root", "/var/spool/cron/root"];

/// Returns every certificate that another program renews here.
pub(super) fn all(files: &mut Files) -> Vec<Renewer> {
    let crontab: String = CRONTABS.iter().filter_map(|path| files.text(path)).collect();
    let starts = |line: &str, program: &str| !line.trim_start().starts_with('#') && line.contains(program);
    // With systemd running, the cron job of Debian's package does nothing.
    let by_cron = files.is_file(CERTBOT_CRON) && !files.is_dir("/run/systemd/system");
    let by_timer = CERTBOT_STARTS.iter().any(|path| files.is_link_or_file(path));
    let certbot = by_cron || by_timer || crontab.lines().any(|line| starts(line, "certbot"));
    let acme_sh = crontab.lines().any(|line| starts(line, "acme.sh"));

    let mut found = Vec::new();
    for path in files.matching(CERTBOT).into_iter().take(LINEAGES_MAX) {
        let name = path.rsplit('/').next().and_then(|name| name.strip_suffix(".conf")).unwrap_or_default().to_owned();
        let read = files.text(&path).and_then(|text| renewer::certbot(&name, &text));
        found.extend(read.map(|renewer| Renewer { is_active: certbot, ..renewer }));
    }
    let dirs = files.names(ACME_SH).into_iter().filter(|name| name.contains('.')).take(LINEAGES_MAX);
    for dir in dirs.collect::<Vec<_>>() {
        let name = dir.strip_suffix("_ecc").unwrap_or(&dir);
        let read = files.text(&format!("{ACME_SH}/{dir}/{name}.conf")).and_then(|text| renewer::acme_sh(&text));
        found.extend(read.map(|renewer| Renewer { is_active: acme_sh, ..renewer }));
    }
    found
}
