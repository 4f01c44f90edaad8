# Shared by the scripts beside it: words to the terminal, the packages they need, and namespaces. Sourced, never run.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scratch=$(mktemp -d "${TMPDIR:-/tmp}/certwright-XXXXXX")
trap 'rm -rf "$scratch"' EXIT

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# need PACKAGE FILE…: `setup` will install the Debian package unless all these files exist.
missing=()
need() {
  local package=$1 file
  shift
  for file in "$@"; do
    if [ ! -e "$file" ]; then missing+=("$package"); return; fi
  done
}

# need_services: the servers beside nginx that the real tests run.
need_services() {
  need apache2 /usr/sbin/apache2
  need postfix /usr/sbin/postfix
  need dovecot-imapd /usr/sbin/dovecot /usr/lib/dovecot/imap
  need dovecot-pop3d /usr/lib/dovecot/pop3
  need prosody /usr/bin/prosody
  need slapd /usr/sbin/slapd
  need ldap-utils /usr/bin/ldapmodify
  need postgresql /usr/lib/postgresql
}

# setup: installs what is missing of what all scripts need and `need` named, and says so.
setup() {
  need pebble /usr/bin/pebble /usr/bin/pebble-challtestsrv
  setup_without_pebble
}

# get_pebble: whether there is a Pebble, after an attempt to install it; for what can do without.
get_pebble() {
  if has_pebble; then return; fi
  # A subshell, because what cannot be installed here is no reason to end.
  (apt_install pebble) && has_pebble
}

has_pebble() { command -v pebble >/dev/null && command -v pebble-challtestsrv >/dev/null; }

# setup_without_pebble: the same for what can do without a Pebble.
setup_without_pebble() {
  export PATH=$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin
  need gcc /usr/bin/gcc
  need libc6-dev /usr/include/stdio.h
  need nginx-light /usr/sbin/nginx
  need tmux /usr/bin/tmux
  need nftables /usr/sbin/nft
  need iproute2 /usr/sbin/ip
  need ca-certificates /etc/ssl/certs/ca-certificates.crt
  need procps /usr/bin/ps
  need curl /usr/bin/curl
  need openssl /usr/bin/openssl
  if [ ${#missing[@]} -gt 0 ]; then apt_install "${missing[@]}"; fi
  command -v cargo >/dev/null || die "cargo is missing: install Rust as https://rustup.rs says; rust-toolchain.toml picks the version"
}

# apt_install PACKAGE…: installs Debian packages, and says so.
apt_install() {
  local as_root=()
  command -v apt-get >/dev/null || die "needs these Debian packages, and there is no apt-get to install them: $*"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "needs these Debian packages: $*. Run as root once, or: apt-get install $*"
    as_root=(sudo)
  fi
  say "installing Debian packages: $*"
  "${as_root[@]}" apt-get update -qq
  case " $* " in *" postfix "*)
    # Its files as they come: nobody here wants mail.
    echo 'postfix postfix/main_mailer_type select No configuration' | "${as_root[@]}" debconf-set-selections
    ;;
  esac
  # A package must not start its daemon here: we only want its files.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$@" >&2
}

# image FILE: a Debian with systemd and nginx as a tar file, for machines of systemd-nspawn. Made once.
image() {
  if [ -e "$1" ]; then return; fi
  say "making an image of Debian with systemd and nginx"
  mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus,nginx-light,openssl,procps bookworm "$1.new.tar" >&2
  mv "$1.new.tar" "$1"
}

# isolated COMMAND…: runs it in network, mount and process namespaces of its own. Every process it starts ends with it.
# As root directly; else in a user namespace, where the system allows that.
isolated() {
  local spaces=(--net --mount --propagation private --pid --fork --kill-child --mount-proc)
  if [ "$(id -u)" -ne 0 ]; then spaces=(--user --map-root-user "${spaces[@]}"); fi
  unshare "${spaces[@]}" -- true 2>/dev/null ||
    die "needs network namespaces: run as root, or allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1; on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0)"
  TMPDIR=$scratch unshare "${spaces[@]}" -- "$@"
}
