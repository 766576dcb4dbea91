"""Secrets from files, and how they get into a store's URL."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from flashsale.cli.options import CacheUrl, LedgerUrl, MySQLUrl
from flashsale.errors import UsageError
from flashsale.files import (
    STORE_PASSWORDS,
    open_private,
    private_folder,
    read_secret,
    with_password,
    write_private,
)

MYSQL = "FLASHSALE_MYSQL_PASSWORD"
HARD = "a:b@c/d?e#f%41 ü"


def _file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, variable: str = MYSQL
) -> None:
    place = tmp_path / variable
    place.write_text(text, encoding="utf-8")
    monkeypatch.setenv(f"{variable}_FILE", str(place))


def test_without_a_file_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_secret(MYSQL) is None
    assert with_password("mysql://sale@db/sale", MYSQL) == "mysql://sale@db/sale"
    monkeypatch.setenv(f"{MYSQL}_FILE", "")
    assert read_secret(MYSQL) is None


@pytest.mark.parametrize("url", ["mysql://sale@db:3306/sale?charset=utf8mb4", "redis://db:6379/0"])
def test_a_password_of_any_kind_arrives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    _file(monkeypatch, tmp_path, f"{HARD}\n")
    whole = with_password(url, MYSQL)
    assert unquote(urlsplit(whole).password or "") == HARD
    assert whole.replace(whole[whole.index("//") + 2 : whole.index("@") + 1], "") == url.replace(
        "sale@", ""
    )
    if url.startswith("mysql"):
        assert make_url(whole).password == HARD
        assert make_url(whole).username == "sale"


def test_a_password_in_the_url_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _file(monkeypatch, tmp_path, "other")
    assert with_password("mysql://sale:own@db/sale", MYSQL) == "mysql://sale:own@db/sale"
    assert with_password("redis://:@db/0", MYSQL) == "redis://:@db/0", "empty, but given"


def test_what_is_no_url_is_left_to_its_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _file(monkeypatch, tmp_path, "x")
    assert with_password("redis://[::1/0", MYSQL) == "redis://[::1/0"


@pytest.mark.parametrize(("text", "told"), [("", "is empty"), (" \n", "is empty")])
def test_an_empty_file_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, told: str
) -> None:
    _file(monkeypatch, tmp_path, text)
    with pytest.raises(UsageError, match=told):
        read_secret(MYSQL)


def test_a_file_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(f"{MYSQL}_FILE", str(tmp_path / "missing"))
    with pytest.raises(UsageError, match=rf"{MYSQL}_FILE: cannot read .*missing \(No such file"):
        read_secret(MYSQL)
    (tmp_path / "noise").write_bytes(b"\xff\xfe")
    monkeypatch.setenv(f"{MYSQL}_FILE", str(tmp_path / "noise"))
    with pytest.raises(UsageError, match="expected text"):
        read_secret(MYSQL)


def test_every_command_completes_the_urls_it_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the one type of each option, from the command line and from the environment."""
    for variable in STORE_PASSWORDS:
        _file(monkeypatch, tmp_path, f"secret-of-{variable.split('_')[1].lower()}", variable)
    monkeypatch.setenv("FLASHSALE_LEDGER_URL", "redis://ledger:6379/0")
    app = typer.Typer()

    @app.command()
    def show(ledger: LedgerUrl = None, cache: CacheUrl = None, mysql: MySQLUrl = None) -> None:
        typer.echo(f"{ledger} {cache} {mysql}")

    done = CliRunner().invoke(app, ["--mysql-url", "mysql://sale@db/sale"])
    assert done.output.split() == [
        "redis://:secret-of-ledger@ledger:6379/0",
        "None",
        "mysql://sale:secret-of-mysql@db/sale",
    ]


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_a_private_file_is_this_users_alone(tmp_path: Path) -> None:
    place = private_folder(tmp_path / "a/b") / "conf"
    place.write_text("what stood there before, for everybody")
    place.chmod(0o666)
    write_private(place, f"größer {os.fsdecode(b'/x/' + bytes([255]))}")
    with open_private(tmp_path / "a/log") as log:
        log.write(b"line")
    assert place.read_bytes() == "größer /x/".encode() + b"\xff"
    assert {p.stat().st_mode & 0o777 for p in (place, tmp_path / "a/log")} == {0o600}
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "a", place.parent)} == {0o700}
    assert [path.name for path in place.parent.iterdir()] == ["conf"]


def test_a_log_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("first ")
    (tmp_path / "log").chmod(0o666)
    with open_private(tmp_path / "log") as log:
        log.write(b"second")
    assert (tmp_path / "log").read_text() == "first second"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
