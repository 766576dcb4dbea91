"""A private MariaDB: durable, strict, READ COMMITTED, one database, and who may do what in it."""

import os
import secrets
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

from flashsale.errors import UnreachableError
from flashsale.files import open_private, write_private
from flashsale.stack import binaries
from flashsale.stack.binaries import Binary
from flashsale.stack.port import Port, Socket
from flashsale.stack.process import CommandLine, log_tail, start_tethered
from flashsale.stack.service import Account, Service
from flashsale.store_urls import mysql_answers

DATABASE = "flashsale"
OWNER = "flashsale"

_BOOTSTRAP_TIMEOUT_S = 120
_PLUGIN_PARENTS = ("lib/mysql", "lib64/mysql", "lib/mariadb", "lib64/mariadb", "lib")

_CONF = """\
[mysqld]
basedir = "{basedir}"
lc-messages-dir = "{messages}"
plugin-dir = "{plugins}"
datadir = "{data}"
tmpdir = "{tmp}"
socket = "{socket}"
pid-file = mysqld.pid
init-file = "{init}"
{way_in}

# What an acknowledged order rests on
innodb-flush-log-at-trx-commit = 1
innodb-rollback-on-timeout = ON
transaction-isolation = READ-COMMITTED
sql-mode = STRICT_TRANS_TABLES,ONLY_FULL_GROUP_BY,NO_ZERO_IN_DATE,NO_ZERO_DATE,\
ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION
character-set-server = utf8mb4
collation-server = utf8mb4_unicode_ci
default-time-zone = +00:00

# Many short transactions on few cores; loose: a release that has dropped one starts without it
max-connections = 300
back-log = 300
loose-thread-cache-size = 64
skip-name-resolve
skip-log-bin
innodb-buffer-pool-size = {buffer_pool_mb}M
loose-innodb-log-file-size = {redo_log_mb}M
innodb-lock-wait-timeout = 10
loose-innodb-flush-neighbors = 0
loose-innodb-adaptive-hash-index = OFF
loose-innodb-buffer-pool-dump-at-shutdown = OFF
loose-innodb-buffer-pool-load-at-startup = OFF
{statistics}{calls}loose-query-cache-type = OFF
loose-query-cache-size = 0
loose-key-buffer-size = 8M
loose-aria-pagecache-buffer-size = 16M
max-allowed-packet = 64M
"""

_PLAIN_CALLS = """\
innodb-use-native-aio = OFF
loose-innodb-flush-method = fsync
loose-innodb-log-file-buffering = ON
loose-innodb-log-file-mmap = OFF
"""
"""Every write and fsync is a call of the C library, where faults can be made."""

_BY_PORT = """\
bind-address = {host}
port = {port}"""
_BY_SOCKET = "skip-networking"

_INIT = """\
CREATE DATABASE IF NOT EXISTS `{database}`;
{accounts}GRANT ALL ON `{database}`.* TO '{user}'@'{host}';
GRANT ALL ON `{database}\\_%`.* TO '{user}'@'{host}';
GRANT PROCESS, CONNECTION ADMIN, READ_ONLY ADMIN ON *.* TO '{user}'@'{host}';
GRANT SELECT, INSERT, UPDATE, DELETE ON `{database}`.* TO '{replica}'@'{host}', \
'{worker}'@'{host}';
"""
_ACCOUNT = """\
CREATE USER IF NOT EXISTS '{user}'@'{host}' IDENTIFIED BY '{password}';
ALTER USER '{user}'@'{host}' IDENTIFIED BY '{password}';
"""
"""Runs at every start, so passwords live in memory and in the init file (0600) alone."""

STATEMENTS_KEPT = 32_768
"""More than the reads of any scenario of ours, were each of them a load; 2 KiB of memory each."""

_NO_STATISTICS = "performance-schema = OFF\n"
_STATISTICS = """\
performance-schema = ON
performance-schema-instrument = '%=OFF'
performance-schema-instrument = 'statement/abstract/%=ON'
performance-schema-instrument = 'statement/com/Prepare=ON'
performance-schema-instrument = 'statement/com/Execute=ON'
performance-schema-instrument = 'statement/sql/prepare_sql=ON'
performance-schema-instrument = 'statement/sql/execute_sql=ON'
performance-schema-instrument = 'statement/sql/select=ON'
performance-schema-instrument = 'statement/sp/stmt=ON'
performance-schema-consumer-events-statements-current = ON
performance-schema-consumer-events-statements-history-long = ON
performance-schema-events-statements-history-long-size = {history}
performance-schema-max-sql-text-length = 0
"""
"""SELECTs alone, each kept with its digest: the one count that loses none, also none that finds
nothing. Their text is not kept: 1 KiB a statement."""

_STATISTICS_INIT = "GRANT SELECT ON performance_schema.* TO '{user}'@'{host}';\n"

_SYSTEM_TABLES = ("system_tables.sql", "performance_tables.sql", "system_tables_data.sql")
_NAMED_AFTER = ("mariadb", "mysql")
"""What the names of those files and of their folder begin with: newer packages, older ones."""

_NO_ACCOUNTS = """\
DELETE FROM global_priv WHERE user <> 'mariadb.sys';
DELETE FROM proxies_priv;
"""


class MariaDBServer(Service):
    """A private MariaDB in `directory`, by a socket or on a port of loopback; data survives a
    restart in it.

    Its owner, whose `url` is, may do everything in the database `flashsale` and in those whose
    names begin with `flashsale_`, end connections and stop writes, and nothing elsewhere. Who
    sells changes rows of the first.
    """

    kind = "mariadb"
    start_timeout_s = 60.0
    stop_timeout_s = 30.0

    def __init__(
        self,
        directory: Path,
        *,
        port: Port | None = None,
        socket: Socket | None = None,
        log: Path | None = None,
        buffer_pool_mb: int = 256,
        redo_log_mb: int = 256,
        statistics: bool = False,
        statements_kept: int = STATEMENTS_KEPT,
        plain_calls: bool = False,
        binary: Binary | None = None,
    ) -> None:
        super().__init__("mariadb", directory, place=socket or port, log=log)
        self._passwords = {account: secrets.token_urlsafe(24) for account in Account}
        self._buffer_pool_mb = buffer_pool_mb
        self._redo_log_mb = redo_log_mb
        self._statistics = (
            _STATISTICS.format(history=statements_kept) if statistics else _NO_STATISTICS
        )
        self._calls = _PLAIN_CALLS if plain_calls else ""
        self._init = _INIT + _STATISTICS_INIT if statistics else _INIT
        self._binary = binary

    @property
    def url(self) -> str:
        return self.url_of(DATABASE)

    def url_of(self, database: str, account: Account = Account.OWNER) -> str:
        """The URL of another database of this server; its name begins with `flashsale_`."""
        login = f"mysql+pymysql://{_user(account)}:{self._passwords[account]}"
        if isinstance(self.place, Socket):
            path = quote(str(self.place.path))
            return f"{login}@localhost/{database}?charset=utf8mb4&unix_socket={path}"
        return f"{login}@{self.place.host}:{self.place.number}/{database}?charset=utf8mb4"

    def url_for(self, account: Account) -> str:
        """Where an account reaches the database."""
        return self.url_of(DATABASE, account)

    def prepare(self) -> CommandLine:
        binary = self._binary or binaries.find(binaries.MARIADB)
        messages = _messages(binary)
        (self.directory / "tmp").mkdir(mode=0o700, exist_ok=True)
        if not self._data.exists():
            self._bootstrap(binary, messages)
        conf = self._write_conf(binary, messages)
        return CommandLine(
            [binary.path, f"--defaults-file={conf}", *_as_root()],
            binary.environment(),
            self.directory,
        )

    def is_ready(self, timeout_s: float) -> bool:
        """Whether our user can log in and ask: nobody else's server knows the password."""
        if isinstance(self.place, Socket):
            self.place.tighten()  # it makes a socket that everybody may use
        return mysql_answers(self.url, timeout_s)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _bootstrap(self, binary: Binary, messages: Path) -> None:
        """Create the system tables, without the accounts that a fresh server comes with.

        What mariadb-install-db does, less its shell: that script wants client programs which
        nothing else here needs. The data folder appears under its name only when it is whole.
        """
        fresh = self.directory / "data-unfinished"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        arguments = [
            f"--basedir={_basedir(binary)}",
            f"--lc-messages-dir={messages}",
            f"--datadir={fresh}",
            f"--tmpdir={self.directory / 'tmp'}",
            "--skip-log-bin",
            "--max-allowed-packet=8M",
            "--enforce-storage-engine=",
            "--innodb-log-file-size=16M",
            "--innodb-buffer-pool-size=32M",
        ]
        with open_private(self.log) as log:
            bootstrap = start_tethered(
                [str(binary.path), "--no-defaults", "--bootstrap", *_as_root(), *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=binary.environment(),
            )
            with bootstrap:
                try:
                    script = _bootstrap_script(messages)
                    bootstrap.communicate(script, timeout=_BOOTSTRAP_TIMEOUT_S)
                except BaseException:
                    bootstrap.kill()
                    raise
        if bootstrap.returncode != 0:
            raise UnreachableError(
                f"mariadb could not create its system tables; the end of {self.log}:\n"
                f"{log_tail(self.log)}"
            )
        fresh.rename(self._data)

    def _write_conf(self, binary: Binary, messages: Path) -> Path:
        init = write_private(self.directory / "init.sql", self._init_text())
        return write_private(
            self.directory / "my.cnf",
            _CONF.format(
                basedir=_basedir(binary),
                messages=messages,
                plugins=_plugins(binary),
                data=self._data,
                tmp=self.directory / "tmp",
                init=init,
                socket=self.place.path if isinstance(self.place, Socket) else "mysqld.sock",
                way_in=self._way_in(),
                buffer_pool_mb=self._buffer_pool_mb,
                redo_log_mb=self._redo_log_mb,
                statistics=self._statistics,
                calls=self._calls,
            ),
        )

    def _way_in(self) -> str:
        if isinstance(self.place, Socket):
            return _BY_SOCKET
        return _BY_PORT.format(host=self.place.host, port=self.place.number)

    def _init_text(self) -> str:
        host = "localhost" if isinstance(self.place, Socket) else self.place.host
        accounts = [
            _ACCOUNT.format(user=_user(account), host=host, password=password)
            for account, password in self._passwords.items()
        ]
        return self._init.format(
            database=DATABASE,
            user=OWNER,
            replica=Account.REPLICA,
            worker=Account.WORKER,
            host=host,
            accounts="".join(accounts),
        )


def _user(account: Account) -> str:
    return OWNER if account is Account.OWNER else account


def _bootstrap_script(messages: Path) -> bytes:
    tables = b"".join(path.read_bytes() for path in _system_tables(messages))
    head = b"CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n"
    return b"%b%b\n%b" % (head, tables, _NO_ACCOUNTS.encode())


def _as_root() -> list[str]:
    """mariadbd refuses to run as root unless it is told to."""
    return ["--user=root"] if os.geteuid() == 0 else []


def _basedir(binary: Binary) -> Path:
    return binary.tree / "usr" if binary.tree else binary.path.resolve().parent.parent


def _messages(binary: Binary) -> Path:
    """The folder of the error messages and of the system tables' SQL."""
    for folder in binary.shares(*_NAMED_AFTER):
        if _system_tables(folder):
            return folder
    raise UnreachableError(
        f"{binary.path} came without the SQL of its system tables; install the whole package: "
        f"{binaries.install_command()}"
    )


def _system_tables(folder: Path) -> list[Path]:
    """The files that make a fresh server's own tables, in their order; none where one lacks."""
    for start in _NAMED_AFTER:
        files = [folder / f"{start}_{name}" for name in _SYSTEM_TABLES]
        if all(file.is_file() for file in files):
            return files
    return []


def _plugins(binary: Binary) -> Path:
    folders = (_basedir(binary) / name / "plugin" for name in _PLUGIN_PARENTS)
    return next((folder for folder in folders if folder.is_dir()), _basedir(binary))
