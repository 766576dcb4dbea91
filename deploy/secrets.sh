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

random() { od -An -vtx1 -N24 /dev/urandom | tr -d ' \n'; }
hashed() { printf %s "$1" | sha256sum | cut -d ' ' -f 1; }

# put NAME: standard input becomes the file NAME, at once and whole.
put() {
    cat > ".$1"
    chmod 444 ".$1"
    mv -f ".$1" "$1"
}

for name in ledger_password cache_password mysql_password mysql_root_password \
    grafana_admin_password operator_token; do
    [ -s "$name" ] || random | put "$name"
done
[ -s mysqld_exporter.cnf ] || printf '[client]\nhost=mysql\nport=3306\nuser=exporter\npassword=%s\n' \
    "$(random)" | put mysqld_exporter.cnf

# What follows from those, in the forms that servers and exporters want.
for role in ledger cache; do
    echo "user default on #$(hashed "$(cat ${role}_password)") ~* &* +@all" | put "$role.acl"
done
printf '{"redis://redis-ledger:6379":"%s","redis://redis-cache:6379":"%s"}\n' \
    "$(cat ledger_password)" "$(cat cache_password)" | put redis_exporter.json
echo "secrets are in $(pwd)" >&2
