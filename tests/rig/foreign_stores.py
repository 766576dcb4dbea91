"""Stores of another release: its packages, unpacked beside this system, run by their own loader."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from flashsale.stack.process import CommandLine
from flashsale.stack.redis import RedisServer
from flashsale.stack.service import Service
from flashsale.store_urls import mysql_answers
from tools.mirror import mirror

PASSWORD = "p@ss/w#rd"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SOURCE = f"deb [signed-by={_KEYS}] {{mirror}} {{suite}} main\n"
_APT_TIMEOUT_S = 240

_ACCOUNT = f"""\
CREATE DATABASE IF NOT EXISTS sale;
CREATE USER IF NOT EXISTS 'sale'@'%' IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON sale.* TO 'sale'@'%';
"""


def unpacked(suite: str, packages: Sequence[str], folder: Path) -> Path:
    """A tree with the packages of a Debian suite and all that they need, its C library too.

    Skips where apt is not there or the packages cannot be had.
    """
    if not shutil.which("apt-get") or not Path(_KEYS).exists():
        pytest.skip("needs apt-get and debian-archive-keyring")
    for name in ("lists/partial", "archives/partial", "tree"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text(_SOURCE.format(mirror=_mirror(), suite=suite))
    options = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder,
        "Debug::NoLocking": "true",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
    }
    conf = folder / "apt.conf"
    hook = "#clear APT::Update::Post-Invoke-Success;\n#clear APT::Update::Post-Invoke;\n"
    conf.write_text(hook + "".join(f'{name} "{value}";\n' for name, value in options.items()))
    for words in (["update"], ["-y", "--download-only", "install", *packages]):
        _have(["apt-get", "-q", "-c", str(conf), *words])
    for archive in sorted((folder / "archives").glob("*.deb")):
        _have(["dpkg", "-x", str(archive), str(folder / "tree")])
        archive.unlink()
    return folder / "tree"


def _mirror() -> str:
    """The archive that this machine's own apt reads."""
    try:
        return mirror()
    except SystemExit as none:
        pytest.skip(str(none))


def by_its_loader(tree: Path, program: str) -> list[str]:
    """How to run a program of the tree with the tree's own libraries."""
    loader = next(path for path in tree.glob("usr/lib/*/ld-linux*.so*"))
    libraries = ":".join(str(path) for path in (loader.parent, tree / "usr/lib/mysql/private"))
    return [str(loader), "--library-path", libraries, str(tree / program)]


class ForeignRedis(RedisServer):
    """A Redis or Valkey of the tree, with the settings of its role."""

    program: list[str]

    def prepare(self) -> CommandLine:
        ours = super().prepare()
        return CommandLine([*self.program, *ours.arguments[1:]], {}, self.directory)


class ForeignMySQL(Service):
    """A MySQL of the tree: its defaults, and the lines of `cnf`."""

    kind = "mysql"
    start_timeout_s = 90.0
    stop_timeout_s = 30.0

    def __init__(self, tree: Path, directory: Path) -> None:
        super().__init__("mysql", directory)
        self._tree = tree
        self.cnf: Sequence[str] = ()

    @property
    def url(self) -> str:
        place = f"{self.port.host}:{self.port.number}"
        return f"mysql://sale:{quote(PASSWORD, safe='')}@{place}/sale"

    def prepare(self) -> CommandLine:
        data, account, conf = (self.directory / name for name in ("data", "account.sql", "my.cnf"))
        account.write_text(_ACCOUNT)
        conf.write_text("\n".join(["[mysqld]", *self.cnf, ""]))
        common = [
            *by_its_loader(self._tree, "usr/sbin/mysqld"),
            f"--defaults-file={conf}",
            f"--basedir={self._tree / 'usr'}",
            f"--datadir={data}",
            *(["--user=root"] if os.geteuid() == 0 else []),
        ]
        if not data.exists():
            _have([*common, "--initialize-insecure"])
        served = [
            f"--bind-address={self.port.host}",
            f"--port={self.port.number}",
            f"--init-file={account}",
            "--socket=mysqld.sock",
            "--pid-file=mysqld.pid",
            "--secure-file-priv=NULL",
            "--mysqlx=OFF",
        ]
        return CommandLine([*common, *served], {}, self.directory)

    def is_ready(self, timeout_s: float) -> bool:
        return mysql_answers(self.url, timeout_s)


def _have(words: Sequence[str]) -> None:
    try:
        subprocess.run(words, capture_output=True, text=True, timeout=_APT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"{words[0]}: {str(told).strip()[-200:]}")
