//! PURE: what certbot and acme.sh keep of their certificates.

use super::{Renewer, is_name, path};

/// Reads /etc/letsencrypt/renewal/NAME.conf.
pub(crate) fn certbot(name: &str, text: &str) -> Option<Renewer> {
    let value = |wanted: &str| -> String {
        let found = text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == wanted).then(|| value.trim())
        });
        path(found.unwrap_or_default(), "")
    };
    // `webroot_path = /var/www/html,` has a comma for each.
    let webroot = text.lines().find_map(|line| line.trim().strip_prefix("webroot_path"));
    let webroot = webroot.map(|rest| rest.trim_start_matches([' ', '=']).split(',').next().unwrap_or_default().trim());
    let certificate = value("fullchain");
    (!certificate.is_empty()).then(|| Renewer {
        program: "certbot".to_owned(),
        name: name.to_owned(),
        certificate,
        key: value("privkey"),
        webroot: webroot
            .filter(|webroot| webroot.starts_with('/'))
            .map(|webroot| path(webroot, ""))
            .unwrap_or_default(),
        is_active: false,
    })
}

/// Reads ~/.acme.sh/NAME/NAME.conf: lines of a shell's `Key='value'`.
pub(crate) fn acme_sh(text: &str) -> Option<Renewer> {
    let value = |wanted: &str| -> String {
        let found = text.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix('='));
        found.unwrap_or_default().trim().trim_matches(['\'', '"']).to_owned()
    };
    let name = value("Le_Domain");
    let installed = [value("Le_RealFullChainPath"), value("Le_RealCertPath")].into_iter().find(|path| !path.is_empty());
    let webroot = value("Le_Webroot");
    is_name(&name).then(|| Renewer {
        program: "acme.sh".to_owned(),
        certificate: path(&installed.unwrap_or_default(), ""),
        key: path(&value("Le_RealKeyPath"), ""),
        webroot: if webroot.starts_with('/') { path(&webroot, "") } else { String::new() },
        name,
        is_active: false,
    })
}
