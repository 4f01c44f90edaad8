//! Files on a real file system: what is visible after every step, and what a hostile directory can do.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::target::{OnDrift, TargetFile, Version};

const NAME: &str = "h1.example.test";
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// Prepares and performs; returns whether anything had to change.
fn install(target: &Target, root: &Dir, pair: &Pair, dropped: &[String]) -> Result<bool, Problem> {
    match prepare(target, root, pair, dropped, &BTreeSet::new())?.todo {
        Todo::InPlace { changed } => Ok(changed),
        Todo::Install(prepared) => prepared.perform().map(|()| true),
    }
}

fn plan(target: &Target, tree: &Tree, dropped: &[String]) -> Result<Vec<Step>, Problem> {
    let names = target.names();
    let observed = tree.observe(&names).map_err(|error| error.problem())?;
    steps::steps(&observed, &target.dir, &names, dropped, &BTreeSet::new()).map(|plan| plan.steps)
}

/// Writes a version and returns what was visible before.
fn switch(target: &Target, root: &Dir, issued: &Issued, dropped: &[String]) -> Before {
    match prepare(target, root, &pair_of(target, issued), dropped, &BTreeSet::new()).unwrap().todo {
        Todo::Install(prepared) => {
            prepared.perform().unwrap();
            prepared.before.unwrap()
        }
        Todo::InPlace { .. } => panic!("nothing to switch"),
    }
}

/// A directory that the policy allows, and a target in it.
pub(in crate::apply) struct Site {
    pub(in crate::apply) dir: tempfile::TempDir,
}

/// A version with its key, as the controller would send it.
pub(in crate::apply) struct Issued {
    pub(in crate::apply) leaf_pem: String,
    pub(in crate::apply) key_pem: String,
    pub(in crate::apply) fingerprint_sha256: [u8; 32],
}

pub(in crate::apply) fn issue(day: i32) -> Issued {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2030 + day, 1, 1);
    params.not_after = rcgen::date_time_ymd(2031 + day, 1, 1);
    let leaf = params.self_signed(&key).unwrap();
    Issued {
        fingerprint_sha256: proto::x509::fingerprint(leaf.der()),
        leaf_pem: leaf.pem(),
        key_pem: key.serialize_pem(),
    }
}

impl Site {
    pub(in crate::apply) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> Dir {
        Dir {
            path: self.dir.path().to_str().unwrap().to_owned(),
            names: vec![],
            files: vec![],
            owners: vec![],
            key_mode_max: 0o640,
        }
    }

    pub(in crate::apply) fn path(&self) -> PathBuf {
        self.dir.path().join("web")
    }

    pub(in crate::apply) fn target(&self, issued: &Issued) -> Target {
        let file = |content, name: &str, mode| TargetFile { content, name: name.to_owned(), owner: None, mode };
        Target {
            id: "t1".into(),
            certificate_name: "web".into(),
            identifiers: vec![NAME.to_owned()],
            version: Some(Version { id: "v".into(), fingerprint_sha256: issued.fingerprint_sha256 }),
            key_slot_id: None,
            dir: self.path().to_str().unwrap().to_owned(),
            files: vec![
                file(Content::Leaf, "cert.pem", 0o644),
                file(Content::Key, "key.pem", 0o600),
                file(Content::Chain, "chain.pem", 0o644),
                file(Content::Fullchain, "fullchain.pem", 0o644),
            ],
            validate: vec![],
            reload: vec![],
            verify: vec![],
            deploy_wish: 0,
            purge: false,
            rollback: false,
            hold: false,
            on_drift: OnDrift::Repair,
        }
    }

    fn install(&self, issued: &Issued) -> Result<bool, Problem> {
        let target = self.target(issued);
        install(&target, &self.root(), &pair_of(&target, issued), &[])
    }
}

fn pair_of(target: &Target, issued: &Issued) -> Pair {
    pair::check(target, &issued.leaf_pem, "", Some(issued.key_pem.clone().into())).unwrap()
}

/// The visible pair: both missing, or a leaf with its key. Returns the leaf's fingerprint.
pub(in crate::apply) fn visible(dir: &Path) -> Option<[u8; 32]> {
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let (leaf, key) = (read("cert.pem"), read("key.pem"));
    assert_eq!(leaf.is_some(), key.is_some(), "only one of the pair is visible");
    let facts: LeafFacts = pair::leaf_of(leaf?.as_bytes()).unwrap();
    assert_eq!(facts.spki_der, spki_of_key(&key?.into()).unwrap(), "the visible pair does not match");
    if let Some(fullchain) = read("fullchain.pem") {
        assert_eq!(pair::leaf_of(fullchain.as_bytes()).unwrap().fingerprint_sha256, facts.fingerprint_sha256);
    }
    Some(facts.fingerprint_sha256)
}

/// Stops after every number of steps, checks what is visible, then lets a new attempt finish.
fn kill_at_every_step(prepare: impl Fn(&Site) -> Option<[u8; 32]>) {
    let issued = issue(5);
    for killed_after in 0.. {
        let site = Site::new();
        let before = prepare(&site);
        let target = site.target(&issued);
        let tree = open(&target, &site.root(), true).unwrap();
        let files = new_files(&target, &pair_of(&target, &issued), &tree).unwrap();
        let steps = plan(&target, &tree, &[]).unwrap();
        let mut seen = vec![visible(&site.path())];
        for step in steps.iter().take(killed_after) {
            tree.perform(step, &files).unwrap();
            seen.push(visible(&site.path()));
        }
        let new = Some(issued.fingerprint_sha256);
        assert!(seen.iter().all(|seen| *seen == before || *seen == new), "something else was visible");
        assert!(seen.is_sorted_by_key(|seen| *seen == new), "the old pair came back");

        assert_eq!(site.install(&issued).unwrap(), killed_after < steps.len() || visible(&site.path()) != new);
        assert_eq!(visible(&site.path()), new);
        let base: Vec<String> = list_dir(&site.path().join(".certwright"));
        assert!(base.iter().all(|name| !name.starts_with('.')), "leftovers: {base:?}");
        if killed_after >= steps.len() {
            return;
        }
    }
}

fn list_dir(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn any_instant_of_a_first_deployment_may_be_the_last() {
    kill_at_every_step(|_| None);
}

#[test]
fn any_instant_of_a_renewal_may_be_the_last() {
    kill_at_every_step(|site| {
        let old = issue(0);
        site.install(&old).unwrap();
        Some(old.fingerprint_sha256)
    });
}

#[test]
fn any_instant_of_a_takeover_of_existing_files_may_be_the_last() {
    kill_at_every_step(|site| {
        let old = issue(0);
        fs::create_dir(site.path()).unwrap();
        fs::write(site.path().join("cert.pem"), &old.leaf_pem).unwrap();
        fs::write(site.path().join("key.pem"), &old.key_pem).unwrap();
        Some(old.fingerprint_sha256)
    });
}

#[test]
fn a_file_put_over_our_link_is_taken_over_again() {
    kill_at_every_step(|site| {
        site.install(&issue(0)).unwrap();
        let other = issue(1);
        for (name, text) in
            [("cert.pem", &other.leaf_pem), ("key.pem", &other.key_pem), ("fullchain.pem", &other.leaf_pem)]
        {
            fs::remove_file(site.path().join(name)).unwrap();
            fs::write(site.path().join(name), text).unwrap();
        }
        Some(other.fingerprint_sha256)
    });
}

#[test]
fn a_second_deployment_of_the_same_version_changes_nothing() {
    let site = Site::new();
    let issued = issue(0);
    assert!(site.install(&issued).unwrap());
    let current = fs::read_link(site.path().join(".certwright/current")).unwrap();
    assert!(!site.install(&issued).unwrap());
    assert_eq!(fs::read_link(site.path().join(".certwright/current")).unwrap(), current);
}

#[test]
fn modes_are_as_asked_and_three_generations_are_kept() {
    let site = Site::new();
    for day in 0..5 {
        site.install(&issue(day)).unwrap();
    }
    assert_eq!(list_dir(&site.path().join(".certwright")), ["3", "4", "5", "current"]);
    let mode = |name: &str| fs::metadata(site.path().join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("key.pem"), mode("cert.pem")), (0o600, 0o644));
    assert_eq!(fs::read_link(site.path().join("key.pem")).unwrap(), Path::new(".certwright/current/key.pem"));
}

#[test]
fn the_first_files_are_kept_as_generation_zero_with_their_mode() {
    let site = Site::new();
    fs::create_dir(site.path()).unwrap();
    fs::write(site.path().join("key.pem"), "old key").unwrap();
    fs::set_permissions(site.path().join("key.pem"), fs::Permissions::from_mode(0o640)).unwrap();
    site.install(&issue(0)).unwrap();
    let zero = site.path().join(".certwright/0/key.pem");
    assert_eq!(fs::read_to_string(&zero).unwrap(), "old key");
    assert_eq!(fs::metadata(&zero).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn two_targets_may_share_a_directory() {
    let site = Site::new();
    site.install(&issue(0)).unwrap();
    let other = issue(1);
    let mut target = site.target(&other);
    target.files.retain(|file| matches!(file.content, Content::Leaf | Content::Key));
    target.files[0].name = "other.crt".into();
    target.files[1].name = "other.key".into();
    install(&target, &site.root(), &pair_of(&target, &other), &[]).unwrap();
    assert!(visible(&site.path()).is_some());
    assert_eq!(fs::read_to_string(site.path().join("other.key")).unwrap(), other.key_pem.replace("\r\n", "\n"));
    site.install(&issue(2)).unwrap();
    assert!(site.path().join("other.key").exists());
}

#[test]
fn a_combined_file_holds_leaf_chain_and_key_and_only_its_certificates_are_shown() {
    let site = Site::new();
    let (mut issued, older) = (issue(1), issue(0));
    let chain = sign_by_a_ca(&mut issued);
    let mut target = site.target(&issued);
    target.files = vec![TargetFile { content: Content::Combined, name: "site.pem".into(), owner: None, mode: 0o600 }];
    let check = |key| pair::check(&target, &issued.leaf_pem, &chain, key);
    assert_eq!(check(None).unwrap_err().reason, "PAIR_INVALID", "a combined file needs the key");
    let pair = check(Some(issued.key_pem.clone().into())).unwrap();
    install(&target, &site.root(), &pair, &[]).unwrap();
    let path = site.path().join("site.pem");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("-----BEGIN")).collect();
    assert_eq!(lines, [CERTIFICATE, CERTIFICATE, "-----BEGIN PRIVATE KEY-----"]);
    assert_eq!(pair::leaf_of(text.as_bytes()).unwrap().fingerprint_sha256, issued.fingerprint_sha256);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(is_in_place(&target, &site.root(), None));
    assert_eq!(leaves(&target, &site.root(), &target.names()).unwrap()[0], issued.fingerprint_sha256);

    let held = held(&target, &site.root()).unwrap().unwrap();
    assert!(held.leaf_pem.starts_with(CERTIFICATE) && held.chain_pem.starts_with(CERTIFICATE));
    assert!(![&held.leaf_pem, &held.chain_pem].iter().any(|pem| pem.contains("PRIVATE")), "a key never leaves");

    let key_of = |issued: &Issued| text.replace(text.split_at(text.find("-----BEGIN P").unwrap()).1, &issued.key_pem);
    fs::write(&path, key_of(&older)).unwrap();
    assert!(!is_in_place(&target, &site.root(), None), "another key is seen");
    fs::write(&path, &issued.leaf_pem).unwrap();
    assert!(!is_in_place(&target, &site.root(), None), "a missing key is seen");

    let wanted = Target { files: target.files.clone(), ..site.target(&older) };
    let refused = install(&wanted, &site.root(), &pair_of(&wanted, &older), &[]).unwrap_err();
    assert_eq!(refused.reason, "OLDER_LEAF");
    let wanted = Target { rollback: true, ..wanted };
    assert!(install(&wanted, &site.root(), &pair_of(&wanted, &older), &[]).unwrap(), "an operator wants it");
}

#[test]
fn a_pkcs12_file_comes_with_its_password_which_stays_the_same() {
    let site = Site::new();
    let (issued, newer) = (issue(1), issue(2));
    let file = |content, name: &str, mode| TargetFile { content, name: name.into(), owner: None, mode };
    let with = |issued: &Issued| Target {
        files: vec![
            file(Content::Fullchain, "fullchain.pem", 0o644),
            file(Content::Pfx, "site.pfx", 0o640),
            file(Content::PfxPassword, "site.password", 0o600),
        ],
        ..site.target(issued)
    };
    let write = |issued: &Issued| install(&with(issued), &site.root(), &pair_of(&with(issued), issued), &[]).unwrap();
    let read = |name: &str| fs::read(site.path().join(name)).unwrap();
    assert!(write(&issued) && !write(&issued), "the same bytes are not written again");
    let (password, first) = (read("site.password"), read("site.pfx"));
    assert!(password.len() == 40 && !first.is_empty());
    assert_eq!(fs::metadata(site.path().join("site.password")).unwrap().mode() & 0o777, 0o600);
    assert!(is_in_place(&with(&issued), &site.root(), None));

    assert!(write(&newer));
    assert_eq!(read("site.password"), password, "a service is told it once");
    assert_ne!(read("site.pfx"), first);
    // What makes no password, or is gone, is no reason for another one.
    fs::write(site.path().join("site.password"), "no").unwrap();
    assert!(write(&newer));
    assert_eq!(read("site.password"), password);
    fs::remove_file(site.path().join("site.password")).unwrap();
    assert!(write(&newer));
    assert_eq!(read("site.password"), password);
    let held = held(&with(&newer), &site.root()).unwrap().unwrap();
    assert!(held.leaf_pem.starts_with(CERTIFICATE) && !held.chain_pem.contains("PRIVATE"));
}

#[test]
fn a_password_that_an_operator_put_there_first_is_used() {
    let (site, issued) = (Site::new(), issue(1));
    fs::create_dir_all(site.path()).unwrap();
    fs::write(site.path().join("site.password"), "changeit-please\n").unwrap();
    let file = |content, name: &str| TargetFile { content, name: name.into(), owner: None, mode: 0o600 };
    let files = vec![
        file(Content::Leaf, "cert.pem"),
        file(Content::Pfx, "site.pfx"),
        file(Content::PfxPassword, "site.password"),
    ];
    let target = Target { files, ..site.target(&issued) };
    install(&target, &site.root(), &pair_of(&target, &issued), &[]).unwrap();
    assert_eq!(fs::read_to_string(site.path().join("site.password")).unwrap(), "changeit-please");
}

/// Lets a CA sign the leaf anew; returns the CA's certificate.
fn sign_by_a_ca(issued: &mut Issued) -> String {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "the issuer");
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let mut leaf = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    leaf.not_before = rcgen::date_time_ymd(2031, 1, 1);
    let leaf_key = KeyPair::from_pem(&issued.key_pem).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &rcgen::Issuer::new(params, key)).unwrap();
    (issued.fingerprint_sha256, issued.leaf_pem) = (proto::x509::fingerprint(leaf.der()), leaf.pem());
    ca.pem()
}

/// A second target in the same directory, with a leaf and a key only.
fn neighbour(site: &Site, issued: &Issued) -> Target {
    let mut target = site.target(issued);
    target.id = "t2".into();
    target.files.retain(|file| matches!(file.content, Content::Leaf | Content::Key));
    target.files[0].name = "other.crt".into();
    target.files[1].name = "other.key".into();
    target
}

/// Whether any file below holds the text.
fn holds(path: &Path, text: &str) -> bool {
    let files = tree_of(path);
    files.iter().any(|path| fs::read_to_string(path).is_ok_and(|found| found.contains(text)))
}

#[test]
fn a_purge_takes_the_key_out_of_a_shared_directory() {
    let site = Site::new();
    let (ours, other) = (issue(0), issue(1));
    let target = neighbour(&site, &other);
    let install_other = |issued: &Issued| {
        let target = neighbour(&site, issued);
        install(&target, &site.root(), &pair_of(&target, issued), &[]).unwrap();
    };
    install_other(&other);
    site.install(&ours).unwrap();
    let key = spki_line(&other);
    assert!(holds(&site.path(), &key));
    fs::create_dir(site.path().join(".certwright/.9.new")).unwrap();
    fs::write(site.path().join(".certwright/.9.new/other.key"), &other.key_pem).unwrap();
    purge(&target, &site.root(), &target.names()).unwrap();
    assert!(!holds(&site.path(), &key), "{:?}", tree_of(&site.path()));
    assert_eq!(visible(&site.path()), Some(ours.fingerprint_sha256));

    // A purge that was cut after the links: the next generation does not carry the key on, a second purge ends it.
    install_other(&other);
    for name in target.names() {
        fs::remove_file(site.path().join(name)).unwrap();
    }
    site.install(&issue(2)).unwrap();
    let current = fs::canonicalize(site.path().join(".certwright/current")).unwrap();
    assert!(!holds(&current, &key) && holds(&site.path(), &key));
    purge(&target, &site.root(), &target.names()).unwrap();
    assert!(!holds(&site.path(), &key));
}

/// A line that only this key's file has.
fn spki_line(issued: &Issued) -> String {
    issued.key_pem.lines().nth(1).unwrap().to_owned()
}

#[test]
fn any_instant_of_dropping_a_name_may_be_the_last() {
    let (old, new) = (issue(0), issue(1));
    for killed_after in 0.. {
        let site = Site::new();
        site.install(&old).unwrap();
        let mut target = site.target(&new);
        target.files.retain(|file| file.content != Content::Chain);
        let dropped = ["chain.pem".to_owned()];
        let pair = pair_of(&target, &new);
        let tree = open(&target, &site.root(), true).unwrap();
        let files = new_files(&target, &pair, &tree).unwrap();
        let steps = plan(&target, &tree, &dropped).unwrap();
        for step in steps.iter().take(killed_after) {
            tree.perform(step, &files).unwrap();
        }
        install(&target, &site.root(), &pair, &dropped).unwrap();
        assert_eq!(visible(&site.path()), Some(new.fingerprint_sha256));
        assert!(fs::symlink_metadata(site.path().join("chain.pem")).is_err(), "left after {killed_after} steps");
        purge(&target, &site.root(), &target.names()).unwrap();
        assert!(list_dir(&site.path()).is_empty(), "left after {killed_after} steps");
        if killed_after >= steps.len() {
            return;
        }
    }
}

#[test]
fn a_link_that_leads_nowhere_keeps_no_key() {
    let site = Site::new();
    let issued = issue(0);
    site.install(&issued).unwrap();
    symlink(".certwright/current/old.pem", site.path().join("old.pem")).unwrap();
    let target = site.target(&issued);
    purge(&target, &site.root(), &target.names()).unwrap();
    assert!(list_dir(&site.path()).is_empty());
}

#[test]
fn a_name_no_longer_listed_goes_with_the_switch() {
    let site = Site::new();
    site.install(&issue(0)).unwrap();
    let next = issue(1);
    let mut target = site.target(&next);
    target.files.retain(|file| file.content != Content::Chain);
    install(&target, &site.root(), &pair_of(&target, &next), &["chain.pem".to_owned()]).unwrap();
    assert!(fs::symlink_metadata(site.path().join("chain.pem")).is_err());
}

#[test]
fn an_older_leaf_never_replaces_a_newer_one() {
    let site = Site::new();
    let new = issue(3);
    site.install(&new).unwrap();
    assert_eq!(site.install(&issue(2)).unwrap_err().reason, "OLDER_LEAF");
    assert_eq!(visible(&site.path()), Some(new.fingerprint_sha256));
}

#[test]
fn a_pair_that_does_not_fit_is_never_written() {
    let site = Site::new();
    let (one, two) = (issue(0), issue(1));
    let target = site.target(&one);
    let refused = |leaf: &str, chain: &str, key: &str| {
        pair::check(&target, leaf, chain, Some(key.to_owned().into()))
            .map_or_else(|problem| problem.message, |_| String::new())
    };
    assert!(refused(&one.leaf_pem, "", &two.key_pem).contains("does not belong"));
    assert!(refused(&two.leaf_pem, "", &two.key_pem).contains("not the desired one"));
    assert!(refused(&one.leaf_pem, &two.leaf_pem, &one.key_pem).contains("chain"));
    assert!(refused("rubbish", "", &one.key_pem).contains("does not parse"));
    assert!(refused(&one.leaf_pem, "", "rubbish").contains("key does not parse"));
    assert!(pair::check(&target, &one.leaf_pem, "", None).unwrap_err().message.contains("no private key"));
    let mut wider = target.clone();
    wider.identifiers.push("other.test".into());
    let key = Some(one.key_pem.clone().into());
    assert!(pair::check(&wider, &one.leaf_pem, "", key).unwrap_err().message.contains("cover"));
}

/// Expects a refusal, and that nothing appeared beside what `prepare` made.
fn refuses(reason: &str, prepare: impl Fn(&Site)) {
    let site = Site::new();
    prepare(&site);
    let before = tree_of(site.dir.path());
    assert_eq!(site.install(&issue(0)).unwrap_err().reason, reason);
    assert_eq!(tree_of(site.dir.path()), before);
}

fn tree_of(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in list_dir(path) {
        let path = path.join(&name);
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            found.extend(tree_of(&path));
        }
        found.push(path.to_str().unwrap().to_owned());
    }
    found
}

#[test]
fn hostile_places_are_refused_and_nothing_is_written() {
    refuses("SYMLINK", |site| {
        fs::create_dir(site.dir.path().join("elsewhere")).unwrap();
        symlink(site.dir.path().join("elsewhere"), site.path()).unwrap();
    });
    refuses("SYMLINK", |site| {
        fs::create_dir(site.path()).unwrap();
        fs::create_dir(site.dir.path().join("elsewhere")).unwrap();
        symlink(site.dir.path().join("elsewhere"), site.path().join(".certwright")).unwrap();
    });
    refuses("NOT_A_FILE", |site| {
        fs::create_dir(site.path()).unwrap();
        symlink("/etc/shadow", site.path().join("key.pem")).unwrap();
    });
    refuses("NOT_A_FILE", |site| {
        fs::create_dir(site.path()).unwrap();
        nix::unistd::mkfifo(&site.path().join("cert.pem"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    });
    refuses("NOT_A_FILE", |site| fs::create_dir_all(site.path().join("cert.pem")).unwrap());
    refuses("NOT_A_DIRECTORY", |site| fs::write(site.path(), "a file").unwrap());
    refuses("UNSAFE_DIR", |site| {
        fs::create_dir(site.path()).unwrap();
        fs::set_permissions(site.path(), fs::Permissions::from_mode(0o777)).unwrap();
    });
    refuses("UNSAFE_DIR", |site| {
        fs::create_dir(site.path()).unwrap();
        fs::set_permissions(site.dir.path(), fs::Permissions::from_mode(0o775)).unwrap();
    });
}

#[test]
fn a_directory_is_made_only_below_an_existing_parent() {
    let site = Site::new();
    let issued = issue(0);
    let mut target = site.target(&issued);
    target.dir = site.dir.path().join("a/b").to_str().unwrap().to_owned();
    let pair = pair_of(&target, &issued);
    assert_eq!(install(&target, &site.root(), &pair, &[]).unwrap_err().reason, "PARENT_MISSING");
    assert!(list_dir(site.dir.path()).is_empty());
    target.dir = site.dir.path().join("a").to_str().unwrap().to_owned();
    install(&target, &site.root(), &pair, &[]).unwrap();
    assert_eq!(fs::metadata(site.dir.path().join("a")).unwrap().mode() & 0o777, 0o755);
}

#[test]
fn a_failing_disk_leaves_the_old_pair_and_no_temporary_file() {
    let site = Site::new();
    let old = issue(0);
    site.install(&old).unwrap();
    // A directory in the place of the switch's temporary link: the last step fails, as with a full disk.
    let blocked = site.path().join(".certwright/..current.certwright-new");
    let blocked = blocked.with_file_name(".current.certwright-new");
    let issued = issue(1);
    let target = site.target(&issued);
    let tree = open(&target, &site.root(), true).unwrap();
    let files = new_files(&target, &pair_of(&target, &issued), &tree).unwrap();
    let steps = plan(&target, &tree, &[]).unwrap();
    fs::create_dir(&blocked).unwrap();
    let failed = steps.iter().position(|step| tree.perform(step, &files).is_err()).unwrap();
    assert!(matches!(steps[failed], Step::Switch(_)));
    tree.tidy(&steps[..=failed]);
    assert_eq!(visible(&site.path()), Some(old.fingerprint_sha256));
    site.install(&issued).unwrap();
    assert_eq!(visible(&site.path()), Some(issued.fingerprint_sha256));
    assert!(!blocked.exists());
}

#[test]
fn an_unknown_owner_is_said_before_anything_is_written() {
    let site = Site::new();
    let issued = issue(0);
    let mut target = site.target(&issued);
    target.files[1].owner = Some(Owner { user: "root".into(), group: "no-such-group".into() });
    let pair = pair_of(&target, &issued);
    assert_eq!(install(&target, &site.root(), &pair, &[]).unwrap_err().reason, "UNKNOWN_OWNER");
    assert!(!site.path().exists());
}

#[test]
fn purge_removes_our_links_and_nothing_else() {
    let site = Site::new();
    let issued = issue(0);
    site.install(&issued).unwrap();
    fs::write(site.path().join("notes.txt"), "keep").unwrap();
    let target = site.target(&issued);
    purge(&target, &site.root(), &target.names()).unwrap();
    assert_eq!(list_dir(&site.path()), ["notes.txt"]);
    purge(&target, &site.root(), &target.names()).unwrap();
}

#[test]
fn looks_at_what_is_there_without_the_version_at_hand() {
    let site = Site::new();
    let (one, two) = (issue(0), issue(1));
    let look = |issued| is_in_place(&site.target(issued), &site.root(), None);
    assert!(!look(&one));
    site.install(&one).unwrap();
    assert!(look(&one) && !look(&two));
    fs::set_permissions(site.path().join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(!look(&one));
}

#[test]
fn knows_the_leaves_of_all_generations_that_are_kept() {
    let site = Site::new();
    let issued = [issue(0), issue(1), issue(2), issue(3)];
    let target = site.target(&issued[0]);
    let look = |names: &[String]| {
        let leaves = leaves(&target, &site.root(), names).unwrap();
        issued.each_ref().map(|issued| leaves.contains(&issued.fingerprint_sha256))
    };
    assert_eq!(look(&target.names()), [false; 4]);
    issued.iter().for_each(|issued| assert!(site.install(issued).unwrap()));
    assert_eq!(look(&target.names()), [false, true, true, true]);
    assert_eq!(look(&["other.pem".to_owned()]), [false; 4], "a neighbour's");
}

#[test]
fn any_instant_of_a_roll_back_may_be_the_last() {
    let (old, new) = (issue(0), issue(1));
    for killed_after in 0.. {
        let site = Site::new();
        site.install(&old).unwrap();
        let target = site.target(&new);
        let before = switch(&target, &site.root(), &new, &[]);
        assert_eq!(before.leaf, old.fingerprint_sha256);
        let tree = open(&target, &site.root(), false).unwrap();
        let observed = tree.observe(&target.names()).unwrap();
        let steps = steps::steps_back(&observed, &target.dir, &before.names, &before.added, before.generation).unwrap();
        let mut seen = Vec::new();
        for step in steps.iter().take(killed_after) {
            tree.perform(step, &[]).unwrap();
            seen.push(visible(&site.path()));
        }
        let (old, new) = (Some(old.fingerprint_sha256), Some(new.fingerprint_sha256));
        assert!(seen.iter().all(|seen| [old, new].contains(seen)), "something else was visible");
        roll_back(&target, &site.root(), &before).unwrap();
        assert_eq!(visible(&site.path()), old);
        let mode = fs::metadata(site.path().join("key.pem")).unwrap().mode();
        assert_eq!(mode & 0o777, target.files.iter().find(|file| file.content == Content::Key).unwrap().mode);
        if killed_after >= steps.len() {
            return;
        }
    }
}

#[test]
fn a_roll_back_brings_dropped_names_back_and_takes_new_ones_away() {
    let site = Site::new();
    let (old, new) = (issue(0), issue(1));
    site.install(&old).unwrap();
    let mut target = site.target(&new);
    for file in &mut target.files {
        if file.content == Content::Chain {
            file.name = "issuers.pem".to_owned();
        }
    }
    let before = switch(&target, &site.root(), &new, &["chain.pem".to_owned()]);
    assert!(site.path().join("issuers.pem").exists() && !site.path().join("chain.pem").exists());
    roll_back(&target, &site.root(), &before).unwrap();
    assert!(!site.path().join("issuers.pem").exists() && site.path().join("chain.pem").exists());
    assert_eq!(visible(&site.path()), Some(old.fingerprint_sha256));
}

#[test]
fn a_roll_back_leaves_what_another_target_of_the_directory_wrote_since() {
    let site = Site::new();
    let (old, new, newest) = (issue(0), issue(1), issue(2));
    let other = |issued: &Issued| {
        let mut target = site.target(issued);
        target.files.retain(|file| file.content == Content::Leaf);
        target.files[0].name = "other.pem".to_owned();
        target
    };
    site.install(&old).unwrap();
    install(&other(&old), &site.root(), &pair_of(&other(&old), &old), &[]).unwrap();
    let target = site.target(&new);
    let before = switch(&target, &site.root(), &new, &[]);
    let pinned = BTreeSet::from([before.generation]);
    // More often than generations are kept.
    for day in 2..8 {
        let next = issue(day);
        match prepare(&other(&next), &site.root(), &pair_of(&other(&next), &next), &[], &pinned).unwrap().todo {
            Todo::Install(prepared) => prepared.perform().unwrap(),
            Todo::InPlace { .. } => panic!("nothing to switch"),
        }
    }
    install(&other(&newest), &site.root(), &pair_of(&other(&newest), &newest), &[]).unwrap_err();
    roll_back(&target, &site.root(), &before).unwrap();
    assert_eq!(visible(&site.path()), Some(old.fingerprint_sha256));
    let others = pair::leaf_of(&fs::read(site.path().join("other.pem")).unwrap()).unwrap();
    assert_eq!(others.not_before.strftime("%Y").to_string(), "2037", "the newest of the other target stays");
}

#[test]
fn a_file_that_somebody_put_in_the_place_of_ours_is_not_rolled_over() {
    let site = Site::new();
    let (old, new) = (issue(0), issue(1));
    site.install(&old).unwrap();
    let target = site.target(&new);
    let before = switch(&target, &site.root(), &new, &[]);
    fs::remove_file(site.path().join("key.pem")).unwrap();
    fs::write(site.path().join("key.pem"), "mine").unwrap();
    assert_eq!(roll_back(&target, &site.root(), &before).unwrap_err().reason, "NOT_A_FILE");
    assert_eq!(fs::read_to_string(site.path().join("key.pem")).unwrap(), "mine");
}
