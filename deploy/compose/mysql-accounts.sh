# Read by the MySQL image's entry point when the data folder is new, after it has made the
# database and its owner. `docker_process_sql` is the entry point's own.
#
# The exporter sees what every account sees, counters and settings, and no rows. The owner sees how
# many statements there were, which is how a storm counts what reads cost the database.
docker_process_sql --database=mysql <<SQL
CREATE USER IF NOT EXISTS 'exporter'@'%'
  IDENTIFIED BY '$(sed -n 's/^password=//p' /run/secrets/mysqld_exporter.cnf)'
  WITH MAX_USER_CONNECTIONS 5;
GRANT SELECT ON performance_schema.* TO '${MYSQL_USER}'@'%';
SQL
