//! PURE: which service a process is, by its name and its control group.

/// A service: as in `proto::presets`, names of its processes, names of its units.
const PROCESSES: [(&str, &[&str], &[&str]); 12] = [
    ("nginx", &["nginx"], &["nginx"]),
    ("apache", &["apache2", "httpd"], &["apache2", "httpd"]),
    ("haproxy", &["haproxy"], &["haproxy"]),
    ("opensips", &["opensips"], &["opensips"]),
    // Its first process is called "master", which others are too.
    ("postfix", &["qmgr"], &["postfix"]),
    ("dovecot", &["dovecot"], &["dovecot"]),
    ("caddy", &["caddy"], &["caddy"]),
    ("exim", &["exim4", "exim"], &["exim4", "exim"]),
    ("prosody", &["prosody"], &["prosody"]),
    ("ejabberd", &["ejabberd"], &["ejabberd"]),
    ("postgresql", &["postgres"], &["postgresql"]),
    ("slapd", &["slapd"], &["slapd"]),
];

/// Returns the unit in the text of /proc/PID/cgroup: "0::/system.slice/nginx.service".
pub(crate) fn unit_of(cgroup: &str) -> Option<&str> {
    let paths = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut units = paths.flat_map(|path| path.rsplit('/')).filter_map(|part| part.strip_suffix(".service"));
    units.find(|unit| {
        unit.len() <= 100 && unit.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"@-_.:\\".contains(&byte))
    })
}

/// Returns the service of a process, as a preset.
pub(crate) fn service_of(name: &str, unit: Option<&str>) -> Option<&'static str> {
    let is_unit = |known: &str| unit.is_some_and(|unit| unit.split('@').next() == Some(known));
    let found =
        PROCESSES.iter().find(|(_, names, units)| names.contains(&name) || units.iter().any(|one| is_unit(one)));
    found.map(|(service, ..)| *service)
}

/// Whether a unit is this service's own, and not one in which it only runs.
pub(crate) fn is_own_unit(service: &str, unit: &str) -> bool {
    let known = PROCESSES.iter().find(|(known, ..)| *known == service);
    known.is_some_and(|(.., units)| units.contains(&unit.split('@').next().unwrap_or_default()))
}
