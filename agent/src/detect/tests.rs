//! Configurations as packages install them and as people write them, and texts that nobody would write.

use proptest::prelude::*;

use super::*;

fn texts(of: &[(&str, &str)]) -> Texts {
    of.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

/// A site as one line: names, where it listens, certificate, key, root.
fn line(site: &Site) -> String {
    let Site { names, listens, certificate, key, root, .. } = site;
    format!("{} @ {} | {certificate} {key} | {root}", names.join(","), listens.join(","))
}

fn lines(service: &str, dump: &str, files: &[(&str, &str)]) -> Vec<String> {
    sites(service, dump, &texts(files)).iter().map(line).collect()
}

const DUMP: &str = r#"# configuration file /etc/nginx/nginx.conf:
user www-data;
http {
    log_format main '$remote_addr "$request" { } ; # no comment';
    map $http_upgrade $connection_upgrade { default upgrade; '' close; }
    include /etc/nginx/mime.types;
    include sites-enabled/*;
}
stream { server { listen 8883 ssl; ssl_certificate /etc/ssl/mq.pem; ssl_certificate_key /etc/ssl/mq.key; } }

# configuration file /etc/nginx/mime.types:
types { text/html html; }

# configuration file /etc/nginx/sites-enabled/www:
# server { listen 1; server_name no.example.com; }
server {
    listen 80 default_server;
    listen [::]:80;
    server_name www.example.com .example.org "_" ~^x\.example$;
    root /var/www/plain;
    location /.well-known/acme-challenge/ { root /var/www/acme; }
    location / { return 301 https://$host$request_uri; }
}
server {
    listen 443 ssl http2;
    listen 10.0.0.1:8443 ssl;
    listen unix:/run/x.sock ssl;
    server_name www.example.com;
    ssl_certificate "/etc/nginx/ssl/www example/fullchain.pem";
    ssl_certificate_key ssl/www.key;
    root /var/www/html;
    content_by_lua_block { local x = "}" -- } don't
        if x then ngx.say('{') end }
    include snippets/more.conf;
}

# configuration file /etc/nginx/snippets/more.conf:
ssl_certificate /etc/nginx/ssl/rsa.pem; ssl_certificate_key /etc/nginx/ssl/rsa.key;
include snippets/more.conf;
"#;

#[test]
fn nginx_is_read_from_its_dump() {
    let found = sites("nginx", DUMP, &Texts::new());
    let said: Vec<String> = found.iter().map(line).collect();
    assert_eq!(
        said,
        [
            "www.example.com,example.org,*.example.org @ http://127.0.0.1:80,http://[::1]:80 |   | /var/www/plain",
            "www.example.com @ 127.0.0.1:443,10.0.0.1:8443 | /etc/nginx/ssl/www example/fullchain.pem /etc/nginx/ssl/www.key | /var/www/html",
            "www.example.com @ 127.0.0.1:443,10.0.0.1:8443 | /etc/nginx/ssl/rsa.pem /etc/nginx/ssl/rsa.key | /var/www/html",
            " @ 127.0.0.1:8883 | /etc/ssl/mq.pem /etc/ssl/mq.key | ",
        ]
    );
    assert!(found[0].redirects && !found[1].redirects);
    assert_eq!(
        (found[0].challenges.as_str(), found[0].source.as_str()),
        ("/var/www/acme", "/etc/nginx/sites-enabled/www")
    );
}

#[test]
fn nginx_is_read_from_its_files_without_a_dump() {
    let main = "http{ssl_certificate /c.pem;ssl_certificate_key /k.pem;include conf.d/*.conf;include /elsewhere/*;}";
    let site = "server{listen *:443 ssl;server_name ${name} a.example.com;root $root;}";
    let files =
        [("/etc/nginx/nginx.conf", main), ("/etc/nginx/conf.d/a.conf", site), ("/etc/nginx/conf.d/b/a.conf", site)];
    assert_eq!(lines("nginx", "", &files), ["a.example.com @ 127.0.0.1:443 | /c.pem /k.pem | "]);
}

#[test]
fn apache_is_read_from_the_files_its_dump_names() {
    let dump = "AH00558: apache2: Could not reliably determine the server's name\nVirtualHost configuration:\n\
                *:80     127.0.0.1 (/etc/apache2/sites-enabled/000-default.conf:1)\n\
                *:443    is a NameVirtualHost\n         default server a (/etc/apache2/sites-enabled/ssl.conf:2)\n\
                         port 443 namevhost a.example.com (/etc/apache2/sites-enabled/ssl.conf:2)\n (nothing:x)\n";
    assert_eq!(
        apache::files_of(dump),
        ["/etc/apache2/sites-enabled/000-default.conf", "/etc/apache2/sites-enabled/ssl.conf"]
    );
    let plain = "<VirtualHost *:80>\nServerName https://a.example.com:443\nDocumentRoot /var/www/html\n\
                 RewriteEngine on\nRewriteRule ^ https://%{SERVER_NAME}%{REQUEST_URI} [END,NE,R=permanent]\n\
                 <Directory /x>\nDocumentRoot /no\n</Directory>\n</VirtualHost>\n";
    let tls = "<IfModule mod_ssl.c>\n<VirtualHost _default_:443 [::]:443>\n  servername A.example.com\n  ServerAlias b.example.com \\\n\
               \tc.example.com *.d.example.com\n  #SSLCertificateFile /no\n  SSLEngine on\n  SSLCertificateFile \"/etc/ssl/a b.pem\"\n\
               SSLCertificateKeyFile ssl/a.key\n  DocumentRoot \"${ROOT}/x\"\n</VirtualHost>\n</IfModule>\n";
    let files = [("/1", plain), ("/2", tls)];
    assert_eq!(
        lines("apache", dump, &files),
        [
            "a.example.com @ http://127.0.0.1:80 |   | /var/www/html",
            "a.example.com,b.example.com,c.example.com,*.d.example.com @ 127.0.0.1:443,[::1]:443 | /etc/ssl/a b.pem /etc/apache2/ssl/a.key | ",
        ]
    );
    assert!(sites("apache", "", &texts(&files))[0].redirects);
}

#[test]
fn haproxy_is_read_from_its_file() {
    let text = "global\n crt-base /etc/haproxy/tls\nfrontend a\n bind *:80\n bind :443,[::]:443 ssl crt www.pem crt 'a b.pem' # crt no\n\
                bind ipv4@10.0.0.1:8443-8450 ssl crt-list /etc/haproxy/list.txt alpn h2\n";
    assert_eq!(
        lines("haproxy", "", &[("/etc/haproxy/haproxy.cfg", text)]),
        [
            " @ http://127.0.0.1:80 |   | ",
            " @ 127.0.0.1:443,[::1]:443 | /etc/haproxy/tls/www.pem /etc/haproxy/tls/www.pem | ",
            " @ 127.0.0.1:443,[::1]:443 | /etc/haproxy/tls/a b.pem /etc/haproxy/tls/a b.pem | ",
            " @ 10.0.0.1:8443 | /etc/haproxy/list.txt /etc/haproxy/list.txt | ",
        ]
    );
    assert_eq!(haproxy::certificate_list("# x\na.pem [alpn h2] a.test\n/b.pem\n", "/l"), ["/l/a.pem", "/b.pem"]);
}

#[test]
fn mail_servers_are_read_from_what_they_print() {
    let postconf =
        "myhostname = mail.example.com\nsmtpd_tls_cert_file = /etc/ssl/certs/mail.pem\nsmtpd_tls_key_file = $x/key\n";
    assert_eq!(
        lines("postfix", postconf, &[]),
        ["mail.example.com @ smtp://127.0.0.1:25 | /etc/ssl/certs/mail.pem /etc/ssl/certs/mail.pem | "]
    );
    let chain = "smtpd_tls_chain_files = /etc/k.pem, /etc/c.pem\nmyhostname = vm\n";
    assert_eq!(lines("postfix", chain, &[]), [" @ smtp://127.0.0.1:25 | /etc/c.pem /etc/k.pem | "]);
    let doveconf = "# 2.3.19.1\nnamespace inbox {\n  mailbox \"Sent\" {\n    special_use = \\Sent\n  }\n}\n\
                    ssl_cert = </etc/dovecot/private/dovecot.pem\nssl_key = # hidden, use -P to show it\n\
                    local_name imap.example.com {\n  ssl_cert = </etc/i.pem\n}\n";
    let files = [("/etc/dovecot/conf.d/10-ssl.conf", "ssl_key = </etc/dovecot/private/dovecot.key\n#ssl_cert = <no\n")];
    assert_eq!(
        lines("dovecot", doveconf, &files),
        [
            " @ 127.0.0.1:993 | /etc/dovecot/private/dovecot.pem /etc/dovecot/private/dovecot.key | ",
            "imap.example.com @ 127.0.0.1:993 | /etc/i.pem  | ",
        ]
    );
    let exim =
        "MAIN_TLS_ENABLE = true\nMAIN_TLS_CERTIFICATE = /etc/exim4/exim.crt\nMAIN_TLS_PRIVATEKEY=/etc/exim4/exim.key\n";
    let found = lines("exim", "", &[("/etc/exim4/exim4.conf.localmacros", exim)]);
    assert_eq!(found, [" @ smtp://127.0.0.1:25 | /etc/exim4/exim.crt /etc/exim4/exim.key | "]);
}

#[test]
fn the_other_servers_are_read_from_their_files() {
    let check =
        |service: &str, text: &str, expected: &[&str]| assert_eq!(lines(service, "", &[("/f", text)]), expected);
    let caddy = "{\n  admin off\n}\n(snip) {\n tls /no /no\n}\nexample.com, https://www.example.com {\n  root * /srv # x\n\
                 tls /c.pem /k.pem\n  handle {\n    root * /no\n  }\n}\nhttp://plain.example.com {\n}\n";
    check(
        "caddy",
        caddy,
        &[
            "example.com,www.example.com @ 127.0.0.1:443 | /c.pem /k.pem | /srv",
            "plain.example.com @ http://127.0.0.1:80 |   | ",
        ],
    );
    let prosody = "VirtualHost \"chat.example.com\" -- VirtualHost \"no.example.com\"\n  ssl = { key = \"/k\", certificate = \"certs/c.crt\" }\n\
                   VirtualHost \"b.example.com\"\nComponent \"x\" \"muc\"\n";
    check(
        "prosody",
        prosody,
        &[
            "chat.example.com @ xmpp://127.0.0.1:5222/chat.example.com | /etc/prosody/certs/c.crt /k | ",
            "b.example.com @ xmpp://127.0.0.1:5222/b.example.com | /etc/prosody/certs/b.example.com.crt /etc/prosody/certs/b.example.com.key | ",
        ],
    );
    let ejabberd = "hosts:\n  - \"x.example.com\"\n\ncertfiles:\n  - \"/etc/ejabberd/*.pem\"\n  - /etc/ejabberd/x.pem\n\nother: 1\n";
    check(
        "ejabberd",
        ejabberd,
        &["x.example.com @ xmpp://127.0.0.1:5222 | /etc/ejabberd/x.pem /etc/ejabberd/x.pem | "],
    );
    let postgres =
        "ssl = on\nssl_cert_file = '/etc/ssl/pg.pem'\t# x\n#ssl_key_file = '/no'\nssl_key_file = '/etc/ssl/pg.key'\n";
    check("postgresql", postgres, &[" @ postgres://127.0.0.1:5432 | /etc/ssl/pg.pem /etc/ssl/pg.key | "]);
    check("postgresql", "ssl_cert_file = 'server.crt'\n", &[]);
    check(
        "slapd",
        "olcTLSCertificateFile: /c\nolcTLSCertificateKeyFile: /k\n",
        &[" @ ldap://127.0.0.1:389 | /c /k | "],
    );
    let opensips = "modparam(\"tls_mgm\", \"server_domain\", \"d\")\nmodparam(\"tls_mgm\", \"certificate\", \"[d]/c\")\n\
                    modparam(\"tls_mgm\", \"private_key\", \"[d]/k\")\n";
    check("opensips", opensips, &[" @ 127.0.0.1:5061 | /c /k | "]);
}

#[test]
fn renewers_are_read_from_what_they_keep() {
    let certbot = "# renew_before_expiry = 30 days\nversion = 2.1.0\narchive_dir = /etc/letsencrypt/archive/x\n\
                   cert = /etc/letsencrypt/live/x/cert.pem\nprivkey = /etc/letsencrypt/live/x/privkey.pem\n\
                   fullchain = /etc/letsencrypt/live/x/fullchain.pem\n[renewalparams]\nauthenticator = webroot\n\
                   webroot_path = /var/www/html,\n[[webroot_map]]\n";
    let found = renewer::certbot("x", certbot).unwrap();
    assert_eq!(
        (found.certificate.as_str(), found.key.as_str()),
        ("/etc/letsencrypt/live/x/fullchain.pem", "/etc/letsencrypt/live/x/privkey.pem")
    );
    assert_eq!(found.webroot, "/var/www/html");
    assert_eq!(renewer::certbot("x", "cert = x\n"), None);
    let acme_sh = "Le_Domain='a.example.com'\nLe_Alt='no'\nLe_Webroot='dns_cf'\nLe_RealCertPath=''\nLe_RealKeyPath='/etc/k'\nLe_RealFullChainPath='/etc/c'\n";
    let found = renewer::acme_sh(acme_sh).unwrap();
    assert_eq!(
        (found.name.as_str(), found.certificate.as_str(), found.key.as_str(), found.webroot.as_str()),
        ("a.example.com", "/etc/c", "/etc/k", "")
    );
    assert_eq!(renewer::acme_sh("Le_Domain='$(id)'\n"), None);
}

#[test]
fn processes_are_told_by_name_and_unit() {
    let unit = |text| processes::unit_of(text);
    assert_eq!(unit("0::/system.slice/nginx.service\n"), Some("nginx"));
    assert_eq!(
        unit("12:cpu:/\n1:name=systemd:/system.slice/system-postfix.slice/postfix@-.service\n"),
        Some("postfix@-")
    );
    assert_eq!(unit("0::/user.slice/user-0.slice/session-1.scope\n"), None);
    assert_eq!(unit("0::/system.slice/x;reboot.service\n"), None);
    assert_eq!(processes::service_of("nginx", None), Some("nginx"));
    assert_eq!(processes::service_of("beam.smp", Some("ejabberd")), Some("ejabberd"));
    assert_eq!(processes::service_of("master", Some("postfix@-")), Some("postfix"));
    assert_eq!(processes::service_of("bash", Some("ssh")), None);
    assert!(processes::is_own_unit("nginx", "nginx") && !processes::is_own_unit("nginx", "docker"));
    assert_eq!(os("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"), "Debian GNU/Linux 12 (bookworm)");
}

#[test]
fn texts_that_nobody_would_write_come_to_an_end() {
    for text in [
        "{".repeat(100_000),
        "}".repeat(100_000),
        "http{server{".repeat(10_000),
        "<VirtualHost *:443>\n".repeat(10_000),
        "include nginx.conf;".repeat(2_000),
        format!("http {{ {} }}", "include nginx.conf; include *;".repeat(500)),
        "x_by_lua_block {".to_owned(),
        "\"".to_owned(),
        "a\\".to_owned(),
        "server_name a.b; ".repeat(5_000),
        format!("http{{{}}}", "server{listen 443 ssl;ssl_certificate /a;ssl_certificate /b;}".repeat(3_000)),
        format!("http{{server{{root /{};}}}}", "x".repeat(200_000)),
        "# configuration file /a:\n# configuration file /etc/nginx/nginx.conf:\nhttp{}".repeat(300),
        "\u{1b}[2J\u{202e}http{server{server_name \u{0}.x;root /\u{7};}}".to_owned(),
    ] {
        assert!(read_all(&text) <= BYTES_MAX);
    }
}

#[test]
fn a_picture_is_told_below_its_limit() {
    let long = format!("/{}", "\u{1b}".repeat(1_000));
    let site = |number: usize| Site { source: format!("{number}"), root: long.clone(), ..Site::default() };
    let mut picture = Picture { sites: (0..5_000).map(site).collect(), ..Picture::default() };
    picture.seal();
    let told = serde_json::to_vec(&picture).unwrap();
    assert!(told.len() <= BYTES_MAX && !picture.sites.is_empty(), "{}", told.len());
    assert!(!told.contains(&0x1b) && picture.notes[0].contains("of 5000 sites"), "{:?}", picture.notes);
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in "[ -~\\n{};\"'#$\\\\]{0,400}") {
        read_all(&text);
        read_all(&format!("http {{ server {{ {text} }} }}"));
        read_all(&format!("# configuration file /etc/nginx/nginx.conf:\n{text}"));
    }
}
