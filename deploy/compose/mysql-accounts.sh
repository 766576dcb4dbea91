# Read by the MySQL image's entry point when the data folder is new, after it has made the
# database and its owner. `docker_process_sql` is the entry point's own, and so is `set -e`: a
# secret that cannot be read ends it here.
#
# Replicas and workers change rows, and no table. The exporter sees what every account sees, counters
# and settings, and no rows. The owner sees how many statements there were, which is how a storm
# counts what reads cost the database.
replica_password="$(cat /run/secrets/replica_password)"
worker_password="$(cat /run/secrets/worker_password)"
exporter_password="$(sed -n 's/^password=//p' /run/secrets/mysqld_exporter.cnf)"
docker_process_sql --database=mysql <<SQL
CREATE USER IF NOT EXISTS 'exporter'@'%' IDENTIFIED BY '$exporter_password'
  WITH MAX_USER_CONNECTIONS 5;
GRANT SELECT ON performance_schema.* TO '${MYSQL_USER}'@'%';
CREATE USER IF NOT EXISTS 'replica'@'%' IDENTIFIED BY '$replica_password';
CREATE USER IF NOT EXISTS 'worker'@'%' IDENTIFIED BY '$worker_password';
GRANT SELECT, INSERT, UPDATE, DELETE ON \`${MYSQL_DATABASE}\`.* TO 'replica'@'%', 'worker'@'%';
SQL
