//! Says in sentences what a policy allows: for `policy explain` and for the operator who has just enrolled a server.

use super::Policy;

/// Returns one line per permission.
#[must_use]
pub fn lines(policy: &Policy) -> Vec<String> {
    let mut lines = Vec::new();
    for dir in &policy.dirs {
        let names = any(&dir.names, "any name");
        let files = any(&dir.files, "any file name");
        let owners = any(&dir.owners, "root:root");
        lines.push(format!(
            "write certificates for {names} in {} and below: {files}; owner {owners}; keys at most {:04o}",
            dir.path, dir.key_mode_max
        ));
    }
    for command in &policy.commands {
        lines.push(format!("run `{}`, at most {} s", command.argv.join(" "), command.timeout.as_secs()));
    }
    for port in &policy.http01_ports {
        lines.push(format!("answer HTTP-01 on port {port} while a challenge is pending"));
    }
    for webroot in &policy.webroots {
        lines.push(format!("answer HTTP-01 with files below {webroot}/.well-known/acme-challenge/"));
    }
    let custody = match (policy.custody_agent, policy.custody_controller) {
        (true, true) => "use keys made here or by the controller",
        (true, false) => "use only keys made here",
        (false, true) => "use only keys made by the controller",
        (false, false) => "use no keys: nothing can be deployed",
    };
    lines.push(custody.to_owned());
    if policy.detect_commands {
        lines.push("detect what is on this server by what its programs print of their configuration".to_owned());
    }
    if policy.detect_homes {
        lines.push("detect what is below /root and /home".to_owned());
    }
    if policy.dirs.is_empty() {
        lines.push("write nowhere: add a [[dir]] with the directory of your service's certificates".to_owned());
    }
    lines
}

fn any(list: &[String], none: &str) -> String {
    if list.is_empty() { none.to_owned() } else { list.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permission_is_a_line() {
        let text = "[[dir]]\npath = \"/etc/x\"\n[[command]]\nargv = [\"/bin/true\"]\n[http01]\nports = [80]\n";
        let lines = lines(&Policy::parse("p", text).unwrap());
        assert_eq!(lines.len(), 4);
        assert!(lines[0].contains("/etc/x") && lines[1].contains("/bin/true") && lines[2].contains("80"));
    }
}
