//! The services whose ways are known here, as data: where a certificate goes, under which names, who may read the key, what
//! checks the configuration, what takes up new files, where the proof is taken. The agent's default policy allows what the
//! command line and the dashboard fill in from it: if the two disagreed, an agent would refuse a preset. A new service is a
//! new row. Paths and accounts are those of the services' Debian packages (OpenSIPS: of its own). Does no I/O.

use crate::types::v1::FileContent;

/// Stands for the certificate's name in a directory or a file name.
const NAME: &str = "{name}";
/// One file with leaf and chain beside the key, as most services read them.
const PAIR: &[(FileContent, &str)] = &[(FileContent::Fullchain, "fullchain.pem"), (FileContent::Key, "key.pem")];
/// Read by root before a service gives up its rights.
const KEY_OF_ROOT: u32 = 0o600;
/// Read by the service's own group.
const KEY_OF_GROUP: u32 = 0o640;

/// One service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// The word after `--preset`.
    pub name: &'static str,
    /// Its name for people.
    pub label: &'static str,
    /// Its directory below /etc; certificates go to `ssl`, `tls` or `certs` in it.
    pub home: &'static str,
    /// A directory that is there when the service is installed.
    pub installed: &'static str,
    /// Where the files go; `{name}` stands for the certificate's name.
    pub dir: &'static str,
    /// What is written under which name; `{name}` stands for the certificate's name.
    pub files: &'static [(FileContent, &'static str)],
    /// `user:group` of the files; empty is the agent's own user.
    pub owner: &'static str,
    /// Groups that may own the files with root, where they exist.
    pub groups: &'static [&'static str],
    /// Permission bits of the file with the key.
    pub key_mode: u32,
    /// Checks the service's configuration; empty where it has no check that can be trusted.
    pub validate: &'static [&'static str],
    /// Makes it take up new files: `systemctl restart` where it cannot reload them.
    pub reload: &'static [&'static str],
    /// The same without systemd; empty where there is no such command.
    pub reload_alone: &'static [&'static str],
    /// Where a handshake must show the new leaf, as `--verify` spells it.
    pub verify: &'static str,
    /// What its configuration must say; `{dir}` stands for the directory.
    pub configure: &'static str,
}

/// Every service.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "nginx",
        label: "nginx",
        home: "/etc/nginx",
        installed: "/etc/nginx",
        dir: "/etc/nginx/ssl/{name}",
        files: PAIR,
        owner: "",
        groups: &["www-data", "nginx"],
        key_mode: KEY_OF_ROOT,
        validate: &["/usr/sbin/nginx", "-t"],
        reload: &["/usr/bin/systemctl", "reload", "nginx"],
        reload_alone: &["/usr/sbin/nginx", "-s", "reload"],
        verify: "127.0.0.1:443",
        configure: "ssl_certificate {dir}/fullchain.pem; ssl_certificate_key {dir}/key.pem;",
    },
    Preset {
        name: "apache",
        label: "Apache",
        home: "/etc/apache2",
        installed: "/etc/apache2",
        dir: "/etc/apache2/ssl/{name}",
        files: PAIR,
        owner: "",
        groups: &["www-data"],
        key_mode: KEY_OF_ROOT,
        validate: &["/usr/sbin/apache2ctl", "configtest"],
        reload: &["/usr/bin/systemctl", "reload", "apache2"],
        reload_alone: &["/usr/sbin/apache2ctl", "graceful"],
        verify: "127.0.0.1:443",
        configure: "SSLCertificateFile {dir}/fullchain.pem, SSLCertificateKeyFile {dir}/key.pem",
    },
    Preset {
        name: "haproxy",
        label: "HAProxy",
        home: "/etc/haproxy",
        installed: "/etc/haproxy",
        // All certificates in one directory: `crt DIR` reads every file of it, and passes over names with a leading dot.
        dir: "/etc/haproxy/certs",
        files: &[(FileContent::Combined, "{name}.pem")],
        owner: "",
        groups: &["haproxy"],
        key_mode: KEY_OF_ROOT,
        validate: &["/usr/sbin/haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"],
        reload: &["/usr/bin/systemctl", "reload", "haproxy"],
        reload_alone: &[],
        verify: "127.0.0.1:443",
        configure: "bind :443 ssl crt {dir}",
    },
    Preset {
        name: "opensips",
        label: "OpenSIPS",
        home: "/etc/opensips",
        installed: "/etc/opensips",
        dir: "/etc/opensips/tls/{name}",
        files: PAIR,
        // Its unit runs it as opensips from the start.
        owner: "root:opensips",
        groups: &["opensips"],
        key_mode: KEY_OF_GROUP,
        validate: &["/usr/sbin/opensips", "-C", "-f", "/etc/opensips/opensips.cfg"],
        // tls_reload only reads domains of a database again.
        reload: &["/usr/bin/systemctl", "restart", "opensips"],
        reload_alone: &[],
        verify: "127.0.0.1:5061",
        configure: "tls_mgm: certificate {dir}/fullchain.pem, private_key {dir}/key.pem",
    },
    Preset {
        name: "postfix",
        label: "Postfix",
        home: "/etc/postfix",
        installed: "/etc/postfix",
        dir: "/etc/postfix/ssl/{name}",
        files: PAIR,
        owner: "",
        groups: &["postfix"],
        key_mode: KEY_OF_ROOT,
        validate: &["/usr/sbin/postfix", "check"],
        reload: &["/usr/bin/systemctl", "reload", "postfix"],
        reload_alone: &["/usr/sbin/postfix", "reload"],
        verify: "smtp://127.0.0.1:25",
        configure: "smtpd_tls_cert_file = {dir}/fullchain.pem, smtpd_tls_key_file = {dir}/key.pem",
    },
    Preset {
        name: "dovecot",
        label: "Dovecot",
        home: "/etc/dovecot",
        installed: "/etc/dovecot",
        dir: "/etc/dovecot/ssl/{name}",
        files: PAIR,
        owner: "",
        groups: &["dovecot"],
        key_mode: KEY_OF_ROOT,
        validate: &["/usr/bin/doveconf", "-n"],
        reload: &["/usr/bin/systemctl", "reload", "dovecot"],
        reload_alone: &["/usr/bin/doveadm", "reload"],
        verify: "127.0.0.1:993",
        configure: "ssl_cert = <{dir}/fullchain.pem, ssl_key = <{dir}/key.pem",
    },
    Preset {
        name: "caddy",
        label: "Caddy",
        home: "/etc/caddy",
        installed: "/etc/caddy",
        dir: "/etc/caddy/ssl/{name}",
        files: PAIR,
        owner: "root:caddy",
        groups: &["caddy"],
        key_mode: KEY_OF_GROUP,
        // Its reload checks, and keeps what ran before; `caddy validate` by root would make files of root's in its storage.
        validate: &[],
        reload: &["/usr/bin/systemctl", "reload", "caddy"],
        reload_alone: &[],
        verify: "127.0.0.1:443",
        configure: "tls {dir}/fullchain.pem {dir}/key.pem",
    },
    Preset {
        name: "exim",
        label: "Exim",
        home: "/etc/exim4",
        installed: "/etc/exim4",
        dir: "/etc/exim4/ssl/{name}",
        files: PAIR,
        owner: "root:Debian-exim",
        groups: &["Debian-exim"],
        key_mode: KEY_OF_GROUP,
        validate: &["/usr/sbin/exim4", "-bV"],
        reload: &["/usr/bin/systemctl", "reload", "exim4"],
        reload_alone: &[],
        verify: "smtp://127.0.0.1:25",
        configure: "MAIN_TLS_CERTIFICATE = {dir}/fullchain.pem, MAIN_TLS_PRIVATEKEY = {dir}/key.pem",
    },
    Preset {
        name: "prosody",
        label: "Prosody",
        home: "/etc/prosody",
        installed: "/etc/prosody",
        // Where it looks by itself for a host of this name.
        dir: "/etc/prosody/certs/{name}",
        files: &[(FileContent::Fullchain, "fullchain.pem"), (FileContent::Key, "privkey.pem")],
        owner: "root:prosody",
        groups: &["prosody"],
        key_mode: KEY_OF_GROUP,
        validate: &[],
        reload: &["/usr/bin/systemctl", "reload", "prosody"],
        reload_alone: &["/usr/bin/prosodyctl", "reload"],
        verify: "xmpp://127.0.0.1:5222",
        configure: "nothing, if the certificate is called as the host; else certificate = and key = below ssl",
    },
    Preset {
        name: "ejabberd",
        label: "ejabberd",
        home: "/etc/ejabberd",
        installed: "/etc/ejabberd",
        dir: "/etc/ejabberd/certs/{name}",
        files: PAIR,
        owner: "root:ejabberd",
        groups: &["ejabberd"],
        key_mode: KEY_OF_GROUP,
        validate: &[],
        reload: &["/usr/bin/systemctl", "reload", "ejabberd"],
        reload_alone: &[],
        verify: "xmpp://127.0.0.1:5222",
        configure: "certfiles: {dir}/*.pem",
    },
    Preset {
        name: "postgresql",
        label: "PostgreSQL",
        // Not /etc/postgresql: that is postgres's own, who could put another directory in its place.
        home: "/etc/postgresql-common",
        installed: "/etc/postgresql",
        dir: "/etc/postgresql-common/ssl/{name}",
        files: PAIR,
        // It takes a key of root's that its group may read, or one of its own that nobody else may.
        owner: "root:postgres",
        groups: &["postgres"],
        key_mode: KEY_OF_GROUP,
        validate: &[],
        reload: &["/usr/bin/systemctl", "reload", "postgresql"],
        reload_alone: &[],
        verify: "postgres://127.0.0.1:5432",
        configure: "ssl_cert_file = '{dir}/fullchain.pem', ssl_key_file = '{dir}/key.pem'",
    },
    Preset {
        name: "slapd",
        label: "OpenLDAP slapd",
        home: "/etc/ldap",
        // /etc/ldap itself belongs to the library that every client has.
        installed: "/etc/ldap/slapd.d",
        dir: "/etc/ldap/ssl/{name}",
        files: PAIR,
        owner: "root:openldap",
        groups: &["openldap"],
        key_mode: KEY_OF_GROUP,
        validate: &[],
        // It reads its files again only at a start, or when its configuration is written over LDAP.
        reload: &["/usr/bin/systemctl", "restart", "slapd"],
        reload_alone: &[],
        verify: "ldap://127.0.0.1:389",
        configure: "olcTLSCertificateFile: {dir}/fullchain.pem, olcTLSCertificateKeyFile: {dir}/key.pem",
    },
];

impl Preset {
    /// Returns the service that `--preset` names.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// Returns the directory for a certificate.
    #[must_use]
    pub fn dir_of(&self, certificate: &str) -> String {
        self.dir.replace(NAME, certificate)
    }

    /// Returns what is written for a certificate, and under which names.
    pub fn files_of(&self, certificate: &str) -> impl Iterator<Item = (FileContent, String)> {
        self.files.iter().map(move |(content, name)| (*content, name.replace(NAME, certificate)))
    }

    /// Returns its commands; none is empty.
    pub fn commands(&self) -> impl Iterator<Item = &'static [&'static str]> {
        [self.validate, self.reload, self.reload_alone].into_iter().filter(|argv| !argv.is_empty())
    }

    /// Returns what the service's configuration must say to find the files in `dir`.
    #[must_use]
    pub fn configuration(&self, dir: &str) -> String {
        self.configure.replace("{dir}", dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_whole() {
        for preset in PRESETS {
            let name = preset.name;
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()) && !preset.label.is_empty(), "{name}");
            assert_eq!(Preset::named(name), Some(preset), "{name} stands twice");
            let below = preset.dir.strip_prefix(preset.home).unwrap();
            assert!(["/ssl", "/tls", "/certs"].iter().any(|folder| below.starts_with(folder)), "{name}");
            assert!(preset.home.starts_with("/etc/") && preset.installed.starts_with("/etc/"), "{name}");
            for argv in preset.commands() {
                assert!(argv[0].starts_with('/'), "{name}: {argv:?}");
            }
            assert!(!preset.reload.is_empty() && !preset.configure.is_empty(), "{name}");
            assert!(matches!(preset.key_mode, 0o600 | 0o640), "{name}");
            assert!(preset.verify.parse::<crate::types::v1::Endpoint>().is_ok(), "{name}");
            // A key that a group may read needs that group; one that root alone reads needs none.
            let group = preset.owner.strip_prefix("root:");
            assert_eq!(group.is_some(), preset.key_mode == KEY_OF_GROUP, "{name}");
            assert!(group.is_none_or(|group| preset.groups.contains(&group)), "{name}");
        }
    }

    #[test]
    fn every_service_gets_a_leaf_and_a_key() {
        for preset in PRESETS {
            let holds = |content| preset.files.iter().any(|(one, _)| *one == content);
            let pair = holds(FileContent::Fullchain) && holds(FileContent::Key);
            assert!(pair || holds(FileContent::Combined), "{}", preset.name);
        }
    }

    #[test]
    fn a_certificates_name_stands_in_its_place() {
        let haproxy = Preset::named("haproxy").unwrap();
        let files: Vec<String> = haproxy.files_of("www").map(|(_, name)| name).collect();
        assert_eq!((haproxy.dir_of("www").as_str(), files), ("/etc/haproxy/certs", vec!["www.pem".to_owned()]));
        let nginx = Preset::named("nginx").unwrap();
        assert_eq!(nginx.dir_of("www"), "/etc/nginx/ssl/www");
        assert!(nginx.configuration("/srv/tls").contains("/srv/tls/key.pem"));
        assert_eq!(Preset::named("iis"), None);
    }
}
