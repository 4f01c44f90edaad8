//! PKCS #12 files as other programs read them: OpenSSL, and Java where it is installed.

use std::path::Path;

use anyhow::{bail, ensure};

use crate::files::Road;

const KEYTOOL: &str = "/usr/bin/keytool";

#[tokio::test]
async fn openssl_and_java_read_the_file_under_a_password_that_stays_over_renewals() -> anyhow::Result<()> {
    let mut road = Road::begin("", "10s").await?;
    let set =
        ["targets", "set", "web", "--agent", "h1", "--file", "cert=cert.pem", "--file", "fullchain=fullchain.pem"];
    let Err(refused) = road.site.control.ok(&set, &["--file", "pfx=site.pfx"]).await else { bail!("no password") };
    ensure!(format!("{refused:#}").contains("a PKCS #12 file needs a password"), "{refused:#}");
    let store = ["--file", "pfx=site.pfx", "--file", "pfx-password=site.password", "--mode", "pfx-password=0640"];
    road.site.control.ok(&set, &store).await?;
    let first = road.ends_as(&["unproven"]).await?;
    let password = read(&road, &first).await?;
    road.renew().await?;
    let second = road.ends_as(&["unproven"]).await?;
    ensure!(first != second && read(&road, &second).await? == password, "a service is told the password once");
    Ok(())
}

/// Checks that the file holds this leaf, its issuer and its key; returns the password.
async fn read(road: &Road, fingerprint: &str) -> anyhow::Result<String> {
    let place = |name: &str| road.dir.join(name).to_string_lossy().into_owned();
    let (file, password) = (place("site.pfx"), place("site.password"));
    let host = &road.server.host;
    let from = format!("file:{password}");
    let text = host.ok(&["openssl", "pkcs12", "-in", &file, "-passin", &from, "-nodes"]).await?;
    for (word, times) in [("-----BEGIN CERTIFICATE", 2), ("-----BEGIN PRIVATE KEY", 1), ("friendlyName: web", 2)] {
        ensure!(text.matches(word).count() == times, "{word} is not there {times} times:\n{text}");
    }
    let leaf = host.ok(&["openssl", "pkcs12", "-in", &file, "-passin", &from, "-clcerts", "-nokeys"]).await?;
    ensure!(crate::files::fingerprint(&leaf)? == fingerprint, "another leaf");
    if Path::new(KEYTOOL).exists() {
        let listed = host.ok(&[KEYTOOL, "-list", "-v", "-keystore", &file, "-storepass:file", &password]).await?;
        for words in ["Alias name: web", "Entry type: PrivateKeyEntry", "Certificate chain length: 2"] {
            ensure!(listed.contains(words), "{words} is not said:\n{listed}");
        }
    }
    let modes = host.ok(&["stat", "-L", "-c", "%a", &file, &password]).await?;
    ensure!(modes == "600\n640\n", "{modes}");
    host.read(&password).await
}
