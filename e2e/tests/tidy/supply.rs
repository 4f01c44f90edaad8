//! The supply chain: libraries that must not come in by the back door. deny.toml says the same to `cargo deny`, which
//! also reads licences; this runs wherever `cargo test` does, without a network.

use std::process::Command;

use crate::source::root;

#[test]
fn aws_lc_rs_is_the_only_crypto_provider() {
    for library in ["ring", "openssl", "openssl-sys", "native-tls"] {
        let cargo = option_env!("CARGO").unwrap_or("cargo");
        let arguments = ["tree", "--offline", "--workspace", "--edges", "all", "--target", "all", "--prefix", "none"];
        let output = Command::new(cargo).args(arguments).current_dir(root()).output().expect("cargo runs");
        let tree = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
        assert!(tree.contains("aws-lc-rs v"), "cargo tree shows no aws-lc-rs: it was not read right");
        let found = tree.lines().find(|line| line.split(' ').next() == Some(library));
        assert_eq!(found, None, "{library} came in: cargo tree --target all -i {library}");
    }
}

#[test]
fn every_dependency_is_pinned_in_one_place() {
    for krate in ["proto", "controller", "agent", "tui", "e2e"] {
        let text = std::fs::read_to_string(root().join(krate).join("Cargo.toml")).expect("a crate has a Cargo.toml");
        let manifest: toml::Table = text.parse().expect("Cargo.toml is TOML");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in manifest.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                let inherits = value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                assert!(inherits, "{krate}/Cargo.toml: {name} must say workspace = true");
            }
        }
    }
}
