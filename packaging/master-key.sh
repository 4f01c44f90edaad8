# The master key of a new installation: 32 random bytes for root's eyes. None is made when there is a database, which only
# its own key opens, nor when an encrypted credential takes its place.
make_master_key() {
  key=/etc/credstore/certwright.master-key
  if [ -e "$key" ] || [ -e /etc/credstore.encrypted/certwright.master-key ] || [ -e /var/lib/certwright/certwright.redb ]; then
    return 0
  fi
  mkdir -p -m 0700 /etc/credstore
  (umask 0377 && head -c 32 /dev/urandom >"$key.new")
  sync "$key.new"
  mv "$key.new" "$key"
  echo "made the master key $key: back it up, apart from the state; without it the state is useless"
}
