//! What the terminal can do and how fast the way to it is, from its environment; it never asks the terminal itself.
//! Made once by `run`.

/// How data-driven frames are limited: bytes that are queued inside an SSH channel delay the next key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// The terminal is on this machine.
    Local,
    /// Over SSH.
    Remote,
    /// The operator said that the line is slow.
    Slow,
}

/// What to paint with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// False: bold, dim, reverse and underline only.
    pub(crate) color: bool,
    /// Only ASCII glyphs.
    pub(crate) ascii: bool,
    /// The way to the terminal.
    pub(crate) link: Link,
}

impl Profile {
    /// Returns the profile for the variables that `variable` knows.
    pub(crate) fn from(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        let term = variable("TERM").unwrap_or_default();
        let old = term.starts_with("vt") || term == "dumb" || term.is_empty();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(&variable).find(|value| !value.is_empty());
        let utf8 = locale.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        let link = match (variable("CERTWRIGHT_LINK").as_deref(), set("SSH_CONNECTION")) {
            (Some("slow"), _) => Link::Slow,
            (_, true) => Link::Remote,
            (_, false) => Link::Local,
        };
        Self {
            color: !set("NO_COLOR") && !old,
            ascii: !utf8 || old || term == "linux" || set("CERTWRIGHT_ASCII"),
            link,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: &[(&str, &str)], color: bool, ascii: bool, link: Link) {
        let found =
            Profile::from(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()));
        assert_eq!(found, Profile { color, ascii, link }, "{variables:?}");
    }

    #[test]
    fn colours_glyphs_and_pace_follow_the_environment() {
        check(&[("TERM", "xterm-256color"), ("LANG", "C.UTF-8")], true, false, Link::Local);
        check(&[("TERM", "xterm"), ("LANG", "C.UTF-8"), ("NO_COLOR", "1")], false, false, Link::Local);
        check(&[("TERM", "xterm"), ("LANG", "C.UTF-8"), ("NO_COLOR", "")], true, false, Link::Local);
        check(&[("TERM", "vt100"), ("LANG", "C.UTF-8")], false, true, Link::Local);
        check(&[("TERM", "linux"), ("LANG", "C.UTF-8")], true, true, Link::Local);
        check(&[("TERM", "xterm"), ("LANG", "C"), ("SSH_CONNECTION", "a b")], true, true, Link::Remote);
        check(
            &[("TERM", "xterm"), ("LC_ALL", "de_DE.utf8"), ("LANG", "C"), ("CERTWRIGHT_LINK", "slow")],
            true,
            false,
            Link::Slow,
        );
    }
}
