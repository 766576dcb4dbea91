"""A private PostgreSQL: the one that this machine has, with data of its own, gone afterwards."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

_READY_S = 30.0


def _bin() -> Path:
    """Where the server's programs are; skips where there is none."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("postgres")
    places += [Path(found).resolve().parent] if found else []
    for place in places:
        if (place / "postgres").exists() and (place / "initdb").exists():
            return place
    pytest.skip("needs a PostgreSQL server (apt install postgresql)")


def _account() -> dict[str, Any]:
    """PostgreSQL does not run as root: then it runs as somebody who may do nothing else."""
    return {"user": "nobody"} if os.geteuid() == 0 else {}


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of its database, whose owner is `shop`; a role `reader` may only select."""
    programs = _bin()
    folder = Path(tempfile.mkdtemp(prefix="flashsale-postgres-"))
    try:
        if os.geteuid() == 0:
            folder.chmod(0o755)
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        data = folder / "data"
        made = [programs / "initdb", "-A", "trust", "-U", "shop", "--no-sync", "-D", data]
        subprocess.run(made, check=True, capture_output=True, timeout=60, cwd="/", **_account())
        place = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
        fast = ["-c", "fsync=off", "-c", "max_connections=120", "-c", "shared_buffers=16MB"]
        log = (folder / "log").open("wb")
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, *place, *fast],
            stdout=log,
            stderr=log,
            cwd="/",
            **_account(),
        )
        try:
            url = f"postgresql://shop@127.0.0.1:{port}/postgres"
            _await(url, server)
            yield url
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)
            log.close()
    finally:
        shutil.rmtree(folder)


def _await(url: str, server: "subprocess.Popen[bytes]") -> None:
    until_s = time.monotonic() + _READY_S
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            assert server.poll() is None
            assert time.monotonic() < until_s
            time.sleep(0.05)
        else:
            return
