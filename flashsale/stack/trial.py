"""Whether a program does its work on this machine, found out by starting it once.

A program that prints its version may still lack a library that it loads later, the files beside
it, or an option that a newer release has dropped.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from flashsale.errors import UnreachableError
from flashsale.stack import binaries
from flashsale.stack.binaries import Binary, Program
from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.nginx import Balancing, NginxServer
from flashsale.stack.port import Port, Socket
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.stack.service import Service

_REDIS_MEMORY_MB = 16
_BUFFER_POOL_MB = 32
_REDO_LOG_MB = 16
_PATIENCE_S = 120.0  # a busy machine is no broken program
_ERROR_WORDS = ("error", "emerg", "cannot", "not found", "fatal")


def complaint(program: Program, binary: Binary) -> str | None:
    """Why `binary` does not start, in one line; None where it does.

    Redis and MariaDB (with system tables made anew) have to answer; nginx has to accept its
    configuration. Takes about two seconds, all of them MariaDB's, and leaves nothing behind.
    What serves no sale is not started.
    """
    start = _STARTS.get(program.name)
    if start is None:
        return None
    with tempfile.TemporaryDirectory(prefix="flashsale-trial-") as folder:
        try:
            start(binary, Path(folder))
        except UnreachableError as error:
            return _in_a_line(str(error))
    return None


def _start_redis(binary: Binary, folder: Path) -> None:
    place = Socket.within(folder, "redis.sock")
    server = RedisServer(
        RedisRole.LEDGER, folder, socket=place, memory_mb=_REDIS_MEMORY_MB, binary=binary
    )
    _start(server)


def _start_mariadb(binary: Binary, folder: Path) -> None:
    _start(
        MariaDBServer(
            folder,
            socket=Socket.within(folder, "mysqld.sock"),
            buffer_pool_mb=_BUFFER_POOL_MB,
            redo_log_mb=_REDO_LOG_MB,
            binary=binary,
        )
    )


def _start(server: Service) -> None:
    server.start_timeout_s = _PATIENCE_S
    try:
        server.start()
    finally:
        server.stop()


def _check_nginx(binary: Binary, folder: Path) -> None:
    replica = Port.free()
    server = NginxServer(folder, Balancing([replica.number]), binary=binary)
    try:
        server.check()
    finally:
        server.stop()
        replica.close()


_STARTS: dict[str, Callable[[Binary, Path], None]] = {
    binaries.REDIS.name: _start_redis,
    binaries.MARIADB.name: _start_mariadb,
    binaries.NGINX.name: _check_nginx,
}


def _in_a_line(text: str) -> str:
    """What happened, and of the log below it the line that tells why."""
    happened, *log = text.splitlines()
    what = happened.split("; ")[0]  # what follows names a log that is gone, or a cure that is not
    telling = [line.strip() for line in log if any(w in line.lower() for w in _ERROR_WORDS)]
    last = [line.strip() for line in log if line.strip()][-1:]
    return ": ".join([what, *(telling[:1] or last)])
