//! From a picture to what would be made of it.

use proto::types::v1::FoundService;

use super::super::agent::PolicyDir;
use super::*;

fn site(service: &str, name: &str, listens: &[&str], certificate: &str, root: &str) -> FoundSite {
    FoundSite {
        service: service.into(),
        names: vec![name.into()],
        listens: listens.iter().map(|listen| (*listen).to_owned()).collect(),
        certificate: certificate.into(),
        root: root.into(),
        source: format!("/etc/{service}/{name}"),
        ..FoundSite::default()
    }
}

fn certificate(path: &str, key_path: &str, key: FoundKey, name: &str) -> FoundCertificate {
    FoundCertificate {
        path: path.into(),
        key_path: key_path.into(),
        key: key.into(),
        identifiers: vec![name.into()],
        owner: "root:root".into(),
        mode: 0o644,
        key_owner: "root:www-data".into(),
        key_mode: 0o640,
        ..FoundCertificate::default()
    }
}

fn picture() -> Picture {
    let runs = |preset: &str, unit: &str| FoundService { preset: preset.into(), unit: unit.into(), is_running: true };
    Picture {
        services: vec![runs("nginx", "nginx"), runs("postfix", "postfix@-")],
        sites: vec![
            site("nginx", "www.example.test", &["http://127.0.0.1:80"], "", "/var/www/html"),
            site("nginx", "www.example.test", &["127.0.0.1:443"], "/etc/nginx/tls/www.pem", "/var/www/html"),
            site("postfix", "www.example.test", &["smtp://127.0.0.1:25"], "/etc/nginx/tls/www.pem", ""),
            site("nginx", "new.example.test", &["http://127.0.0.1:80"], "", "/var/www/new"),
        ],
        certificates: vec![certificate(
            "/etc/nginx/tls/www.pem",
            "/etc/nginx/tls/www.key",
            FoundKey::Matches,
            "www.example.test",
        )],
        ..Picture::default()
    }
}

fn held(name: &str, identifier: &str, place: Option<(&str, &str)>) -> Held {
    Held {
        name: name.into(),
        identifiers: vec![identifier.into()],
        custody: Custody::Agent,
        places: place.iter().map(|(dir, file)| ((*dir).to_owned(), vec![(*file).to_owned()])).collect(),
        has_target: place.is_some(),
    }
}

#[test]
fn a_certificate_that_is_there_is_taken_over_at_its_paths_for_all_who_read_it() {
    let found = drafts(&picture(), "a");
    assert_eq!(found.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["www.example.test", "new.example.test"]);
    let www = &found[0];
    assert!(www.adopts && www.configure.is_empty() && www.warnings.is_empty());
    assert_eq!(www.target.dir, "/etc/nginx/tls");
    let files: Vec<_> = www
        .target
        .files
        .iter()
        .map(|file| (file.content, file.name.as_str(), file.owner.as_str(), file.mode))
        .collect();
    assert_eq!(files, [(Content::Fullchain, "www.pem", "", 0o644), (Content::Key, "www.key", "root:www-data", 0o640)]);
    let commands: Vec<String> =
        www.target.validate.iter().chain(&www.target.reload).map(|argv| argv.join(" ")).collect();
    assert_eq!(
        commands,
        [
            "/usr/sbin/nginx -t",
            "/usr/sbin/postfix check",
            "/usr/bin/systemctl reload nginx",
            "/usr/bin/systemctl reload postfix"
        ]
    );
    assert_eq!(
        www.target.verify.iter().map(|one| one.address.as_str()).collect::<Vec<_>>(),
        ["127.0.0.1:443", "127.0.0.1:25"]
    );
    assert_eq!(www.http01, Http01::Webroot("/var/www/html".into()));
    let new = &found[1];
    assert!(!new.adopts && new.configure.contains("/etc/nginx/ssl/new.example.test/fullchain.pem"));
    assert_eq!(
        (new.source.as_str(), &new.http01),
        ("/etc/nginx/new.example.test", &Http01::Webroot("/var/www/new".into()))
    );
}

#[test]
fn what_one_target_cannot_write_goes_to_the_services_own_directory() {
    let mut picture = picture();
    for (key_path, key) in [
        ("/etc/ssl/private/www.key", FoundKey::Matches),
        ("/etc/nginx/tls/www.key", FoundKey::Missing),
        ("/etc/nginx/tls/www.key", FoundKey::Unreadable),
    ] {
        picture.certificates[0] = certificate("/etc/nginx/tls/www.pem", key_path, key, "www.example.test");
        let found = &drafts(&picture, "a")[0];
        assert!(!found.adopts && found.configure.contains("ssl_certificate_key"), "{key_path}");
        assert_eq!(found.target.dir, "/etc/nginx/ssl/www.example.test");
    }
    picture.certificates[0] = certificate("/etc/nginx/tls/www.pem", "", FoundKey::Combined, "www.example.test");
    let files = &drafts(&picture, "a")[0].target.files;
    assert_eq!((files.len(), files[0].content, files[0].mode), (1, Content::Combined, 0o640));
}

#[test]
fn another_renewer_is_told_with_what_stops_it() {
    let path = "/etc/letsencrypt/live/le/fullchain.pem";
    let renewer = |program: &str, name: &str, certificate: &str| FoundRenewer {
        program: program.into(),
        name: name.into(),
        certificate: certificate.into(),
        webroot: "/srv/acme".into(),
        is_active: true,
        ..FoundRenewer::default()
    };
    let picture = Picture {
        certificates: vec![FoundCertificate {
            leads_to: "/etc/letsencrypt/archive/le/fullchain1.pem".into(),
            ..certificate(path, "/etc/letsencrypt/live/le/privkey.pem", FoundKey::Matches, "*.example.test")
        }],
        renewers: vec![renewer("certbot", "le", path), renewer("acme.sh", "x.test", "")],
        ..Picture::default()
    };
    let found = drafts(&picture, "a");
    assert_eq!(found.len(), 1, "what acme.sh installed nowhere is nobody's");
    let le = &found[0];
    assert_eq!(
        (le.name.as_str(), le.target.dir.as_str(), le.adopts),
        ("wildcard.example.test", "/etc/letsencrypt/live/le", true)
    );
    assert_eq!(le.http01, Http01::Webroot("/srv/acme".into()));
    assert!(
        le.warnings[0].contains("wildcard") && le.warnings[1].contains("certbot renews it too"),
        "{:?}",
        le.warnings
    );
    assert_eq!(
        le.first,
        [
            "mv /etc/letsencrypt/renewal/le.conf /etc/letsencrypt/renewal/le.conf.certwright",
            "cp -p --remove-destination /etc/letsencrypt/archive/le/fullchain1.pem /etc/letsencrypt/live/le/fullchain.pem",
        ]
    );
    assert_eq!(
        (shell("a b").as_str(), shell("$(id)'x").as_str(), shell("").as_str()),
        ("'a b'", "'$(id)'\\''x'", "''")
    );
}

#[test]
fn what_is_managed_already_is_not_made_twice() {
    let policy = Policy::default();
    let does = |held: &[Held]| {
        let one = settle(drafts(&picture(), "a"), held, &policy).swap_remove(0);
        (one.does, one.certificate, one.warnings.len())
    };
    assert_eq!(does(&[]), (Does::Create, "www.example.test".to_owned(), 0));
    assert_eq!(does(&[held("shop", "www.example.test", None)]), (Does::Add, "shop".to_owned(), 0));
    assert_eq!(does(&[held("shop", "www.example.test", Some(("/x", "y")))]), (Does::Add, "shop".to_owned(), 1));
    assert_eq!(
        does(&[held("shop", "other.test", Some(("/etc/nginx/tls", "www.pem")))]),
        (Does::Present, "shop".to_owned(), 0)
    );
    assert_eq!(
        does(&[held("www.example.test", "other.test", None)]),
        (Does::Create, "www.example.test-2".to_owned(), 0)
    );
}

#[test]
fn the_policys_lines_are_whole_and_only_those_that_lack() {
    let narrow = Policy {
        http01_ports: vec![80],
        webroots: vec!["/srv".into()],
        custody: vec!["agent".into()],
        ..Policy::default()
    };
    let mut one = settle(drafts(&picture(), "a"), &[], &narrow).swap_remove(0);
    one.target.validate.clear();
    one.target.reload.truncate(1);
    let lines = lacking(&narrow, &one);
    assert_eq!(
        lines,
        [
            "[[dir]]",
            "path = \"/etc/nginx/tls\"",
            "names = [\"www.example.test\"]",
            "files = [\"www.pem\", \"www.key\"]",
            "owners = [\"root:root\", \"root:www-data\"]",
            "key_mode_max = \"0640\"",
            "[[command]]",
            "argv = [\"/usr/bin/systemctl\", \"reload\", \"nginx\"]",
            "timeout = \"30s\"",
            "[http01]",
            "ports = [80]",
            "webroots = [\"/srv\", \"/var/www/html\"]",
        ]
    );
    let dir = PolicyDir {
        path: "/etc/nginx/tls".into(),
        owners: vec!["root:www-data".into()],
        key_mode_max: 0o640,
        ..PolicyDir::default()
    };
    let wide = Policy {
        dirs: vec![dir],
        commands: one.target.reload.clone(),
        webroots: vec!["/var/www/html".into()],
        ..narrow
    };
    assert_eq!(lacking(&wide, &one), Vec::<String>::new());
}

#[test]
fn a_picture_of_a_liar_is_no_trouble() {
    let nasty = [
        "",
        "/",
        "//",
        "/..",
        "/../x",
        "x",
        "/a/../b",
        "/a//b",
        "/.certwright/x",
        "/a/.x",
        "\u{202e}",
        "*.",
        "*.*.x",
        "$(id)",
    ];
    for one in nasty {
        let mut picture = picture();
        for site in &mut picture.sites {
            (site.certificate, site.root, site.service) = (one.into(), one.into(), one.into());
            site.listens = vec![one.into()];
            site.names = vec![one.into()];
        }
        picture.certificates[0] = certificate(one, one, FoundKey::Matches, one);
        picture.renewers = vec![FoundRenewer { certificate: one.into(), name: one.into(), ..FoundRenewer::default() }];
        for one in settle(drafts(&picture, "a"), &[], &Policy::default()) {
            assert!(is_name(&one.certificate) && one.target.dir.starts_with('/'), "{one:?}");
        }
    }
}
