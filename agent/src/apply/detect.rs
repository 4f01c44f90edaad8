//! Looks at this server for `detect`: reads the configurations of the services it knows, the certificates they name, and what
//! other renewers left. It changes nothing; what it runs are the programs' own dumps, compiled in here, where the policy
//! allows them. A private key is compared here and nowhere else, and nothing of it is told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proto::presets::{PRESETS, Preset};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::Room;
use crate::detect::{self, Picture, Service, Site, Texts, apache, haproxy};
use crate::host::CommandExit;
use crate::policy::Policy;
use crate::problem::Problem;

mod certificates;
mod files;
mod processes;
mod renewers;

use files::Files;

/// What the programs print of their own configuration; none of them changes anything.
const DUMPS: [(&str, &[&str]); 4] = [
    ("nginx", &["/usr/sbin/nginx", "-T"]),
    ("apache", &["/usr/sbin/apache2ctl", "-t", "-D", "DUMP_VHOSTS"]),
    ("postfix", &["/usr/sbin/postconf", "-n"]),
    ("dovecot", &["/usr/bin/doveconf", "-n"]),
];
const DUMP_TIME_MAX: Duration = Duration::from_secs(10);
/// All of it; the operator who asks waits for a minute.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Where a service's configuration lies when its program does not print it. `*` stands for no slash.
const PLACES: [(&str, &[&str]); 12] = [
    ("nginx", &["/etc/nginx/nginx.conf", "/etc/nginx/conf.d/*", "/etc/nginx/sites-enabled/*", "/etc/nginx/snippets/*"]),
    ("apache", &["/etc/apache2/sites-enabled/*", "/etc/httpd/conf/httpd.conf", "/etc/httpd/conf.d/*.conf"]),
    ("haproxy", &["/etc/haproxy/haproxy.cfg", "/etc/haproxy/conf.d/*.cfg"]),
    ("opensips", &["/etc/opensips/opensips.cfg"]),
    ("postfix", &["/etc/postfix/main.cf"]),
    ("dovecot", &["/etc/dovecot/dovecot.conf", "/etc/dovecot/conf.d/*.conf", "/etc/dovecot/local.conf"]),
    ("caddy", &["/etc/caddy/Caddyfile", "/etc/caddy/conf.d/*", "/etc/caddy/sites-enabled/*"]),
    ("exim", &["/etc/exim4/exim4.conf.localmacros", "/etc/exim4/exim4.conf", "/etc/exim4/conf.d/main/*"]),
    ("prosody", &["/etc/prosody/prosody.cfg.lua", "/etc/prosody/conf.d/*.cfg.lua"]),
    ("ejabberd", &["/etc/ejabberd/ejabberd.yml"]),
    ("postgresql", &["/etc/postgresql/*/*/postgresql.conf", "/etc/postgresql/*/*/conf.d/*.conf"]),
    ("slapd", &["/etc/ldap/slapd.d/cn=config.ldif"]),
];

impl Room {
    /// One look at a time: it may read much.
    pub(super) async fn detect(self: Arc<Self>) -> Result<Picture, Problem> {
        let Ok(_turn) = self.detecting.try_lock() else {
            let hint = "ask again in a minute";
            return Err(Problem::new("DETECT_BUSY", "this server is being looked at already", "", hint));
        };
        let policy = self.policy.current()?;
        let root = self.host.root();
        let installed = blocking({
            let root = root.clone();
            move || processes::services(&Files::new(&root))
        })
        .await?;
        let (dumps, notes) = self.dumps(&installed, &policy).await;
        blocking(move || assemble(&root, installed, &dumps, notes)).await
    }

    async fn dumps(&self, installed: &[Service], policy: &Policy) -> (Vec<(&'static str, String)>, Vec<String>) {
        let (mut dumps, mut notes) = (Vec::new(), Vec::new());
        let until = Instant::now() + TIME_MAX;
        for (service, argv) in DUMPS {
            if !installed.iter().any(|one| one.preset == service) {
                continue;
            }
            if !policy.detect_commands {
                notes.push(format!(
                    "`{}` was not run; as root, in {}, allow what only prints a configuration with: [detect] commands = true",
                    argv.join(" "),
                    policy.source
                ));
                continue;
            }
            if Instant::now() >= until {
                notes.push(format!("`{}` was not run: what was run before it took too long", argv.join(" ")));
                continue;
            }
            let words: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
            let outcome = self.host.dump(&words, DUMP_TIME_MAX).await;
            match outcome.exit {
                CommandExit::Status(0) => dumps.push((service, outcome.output)),
                exit => {
                    let said = outcome.output.lines().next().unwrap_or_default();
                    notes.push(format!("`{}` failed ({exit:?}): {said}; its files were read instead", argv.join(" ")));
                }
            }
        }
        if !policy.detect_homes {
            notes.push(format!(
                "where the agent runs as units of systemd it sees nothing below /home and /root, acme.sh's files among it; as \
                 root, in {}: [detect] homes = true, then `certwright-agent policy install`",
                policy.source
            ));
        }
        (dumps, notes)
    }
}

async fn blocking<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    spawn_blocking(look).await.map_err(|error| Problem::internal(&format!("a look at this server: {error}")))
}

fn assemble(root: &Path, services: Vec<Service>, dumps: &[(&'static str, String)], notes: Vec<String>) -> Picture {
    let mut files = Files::new(root);
    let mut picture = Picture { os: os(&mut files), services, notes, ..Picture::default() };
    for preset in PRESETS.iter().filter(|preset| picture.services.iter().any(|one| one.preset == preset.name)) {
        let dump = dumps.iter().find(|(service, _)| *service == preset.name).map_or("", |(_, text)| text.as_str());
        let found = detect::sites(preset.name, dump, &texts(preset, dump, &mut files));
        picture.sites.extend(found.into_iter().flat_map(|site| opened(site, &mut files)));
    }
    for site in &mut picture.sites {
        site.wordpress = is_wordpress(&site.root, &files);
    }
    picture.renewers = renewers::all(&mut files);
    certificates::look(&mut picture, &mut files);
    files.notes().for_each(|note| picture.note(note));
    picture.seal();
    picture
}

fn os(files: &mut Files) -> String {
    let text = files.text("/etc/os-release").or_else(|| files.text("/usr/lib/os-release"));
    detect::os(&text.unwrap_or_default())
}

fn texts(preset: &Preset, dump: &str, files: &mut Files) -> Texts {
    let named = if preset.name == "apache" { apache::files_of(dump) } else { Vec::new() };
    let places = PLACES.iter().find(|(service, _)| *service == preset.name).map_or(&[][..], |(_, places)| places);
    let paths: Vec<String> = match named.is_empty() {
        true => places.iter().flat_map(|pattern| files.matching(pattern)).collect(),
        false => named,
    };
    paths.into_iter().filter_map(|path| files.text(&path).map(|text| (path, text))).collect()
}

/// HAProxy takes a directory, or a list, for many certificates.
fn opened(site: Site, files: &mut Files) -> Vec<Site> {
    if site.service != "haproxy" || site.certificate.is_empty() {
        return vec![site];
    }
    let inside = if files.is_dir(&site.certificate) {
        files.matching(&format!("{}/*", site.certificate.trim_end_matches('/')))
    } else if !site.certificate.ends_with(".pem") {
        let base = site.certificate.rsplit_once('/').map_or("", |(base, _)| base).to_owned();
        let text = files.text(&site.certificate).unwrap_or_default();
        if text.contains("-----BEGIN") { return vec![site] } else { haproxy::certificate_list(&text, &base) }
    } else {
        return vec![site];
    };
    inside.into_iter().map(|path| Site { key: path.clone(), certificate: path, ..site.clone() }).collect()
}

fn is_wordpress(root: &str, files: &Files) -> bool {
    !root.is_empty() && ["wp-config.php", "wp-load.php"].iter().any(|name| files.is_file(&format!("{root}/{name}")))
}

#[cfg(test)]
mod tests;
