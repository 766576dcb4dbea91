#!/bin/sh
# Every secret of deploy/compose.yaml, as files of this user's own; what exists stays as it is.
#
#   deploy/secrets.sh [folder]          (.secrets beside deploy/ by default)
#
# Compose hands a file to a container with the owner and mode that it has here, and no container
# runs as you. So the files can be read by everybody, and the folder by nobody but you.
set -eu

folder="${1:-$(dirname "$0")/../.secrets}"
umask 077
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

# Of a pipe, the shell sees the last command fail and no other: so there is none but behind printf.

fail() {
    echo "secrets.sh: $1" >&2
    exit 1
}

# made: 24 random bytes, in hexadecimal.
make() {
    bytes="$(od -An -vtx1 -N24 /dev/urandom)" || fail "no random bytes from od and /dev/urandom"
    made="$(printf %s $bytes)"
    [ "${#made}" -eq 48 ] || fail "expected 24 random bytes from od and /dev/urandom"
}

# told: what the file $1 holds.
tell() {
    told="$(cat "$1")" || fail "cannot read $1"
    [ -n "$told" ] || fail "$1 is empty; remove it and run this again"
}

# hash: SHA-256 of the text $1.
digest() {
    sum="$(printf %s "$1" | sha256sum)" || fail "sha256sum failed"
    hash="${sum%% *}"
    [ "${#hash}" -eq 64 ] || fail "expected a SHA-256 from sha256sum"
}

# put NAME TEXT: the file NAME holds TEXT, at once and whole.
put() {
    { printf %s "$2" > ".$1" && chmod 444 ".$1" && mv -f ".$1" "$1"; } || fail "cannot write $1"
}

for name in ledger_password cache_password mysql_password mysql_root_password \
    replica_password worker_password grafana_admin_password operator_token; do
    [ -s "$name" ] && continue
    make
    put "$name" "$made"
done
if ! [ -s mysqld_exporter.cnf ]; then
    make
    put mysqld_exporter.cnf "[client]
host=mysql
port=3306
user=exporter
password=$made
"
fi

# What follows from those, in the forms that servers and exporters want. What an account may do is
# what `flashsale serve` grants it (flashsale/stack/redis.py).
counts="resetkeys resetchannels -@all +@connection -@dangerous"
counts="$counts +info +config|get +slowlog|get +slowlog|len"
sells="resetchannels -@all +@read +@write +@connection +@transaction -@dangerous -@scripting"
sells="$sells -scan -randomkey +eval +evalsha +script|load +time +info"
ledger_replica="~seckill:* ~stream.orders* ~icr:order:* ~login:* ~sign:* ~lock:fence ~lock:probe"
cache_replica="~cache:* ~bloom:* ~shop:geo:* ~lock:* ~wake:* ~blog:liked:* ~follows:* ~feed:*"
ledger_worker="~seckill:* ~stream.orders* ~icr:order:* ~lock:fence ~lock:probe"
cache_worker="~lock:order:* ~lock:probe"

# acl ROLE REPLICA_KEYS WORKER_KEYS: the accounts of a Redis.
acl() {
    tell "$1_password" && digest "$told" && owner="$hash"
    tell replica_password && digest "$told" && replica="$hash"
    tell worker_password && digest "$told" && worker="$hash"
    digest "$exporter"
    put "$1.acl" "user default on #$owner ~* &* +@all
user replica on #$replica resetkeys $2 $sells
user worker on #$worker resetkeys $3 $sells +config|get
user exporter on #$hash $counts
"
}

tell mysqld_exporter.cnf
exporter="${told##*password=}"
acl ledger "$ledger_replica" "$ledger_worker"
acl cache "$cache_replica" "$cache_worker"
# Releases of the exporter differ in whether the account is part of the name.
put redis_exporter.json "{\"redis://redis-ledger:6379\":\"$exporter\",\
\"redis://exporter@redis-ledger:6379\":\"$exporter\",\
\"redis://redis-cache:6379\":\"$exporter\",\
\"redis://exporter@redis-cache:6379\":\"$exporter\"}
"
echo "secrets are in $(pwd)" >&2
