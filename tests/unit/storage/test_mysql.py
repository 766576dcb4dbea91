"""Which errors of MySQL mean what, and what a URL must look like."""

import re
from pathlib import Path

import pymysql
import pytest
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

import flashsale
from flashsale.errors import Indeterminate, Unavailable, UsageError
from flashsale.storage.mysql import Duplicate, engine, error_code, translated


def driver_error(code: object, *, lost: bool = False) -> OperationalError:
    driver = pymysql.OperationalError(code, "text")
    return OperationalError("SELECT 1", {}, driver, connection_invalidated=lost)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (IntegrityError("INSERT", {}, pymysql.IntegrityError(1062, "Duplicate entry")), Duplicate),
        (driver_error(2006), Indeterminate),
        (driver_error(2013), Indeterminate),
        (driver_error(4031), Indeterminate),
        (driver_error(1927), Indeterminate),
        (driver_error(1053), Indeterminate),
        (driver_error(9999, lost=True), Indeterminate),
        (driver_error(2003), Unavailable),
        (driver_error(1040), Unavailable),
        (driver_error(1205), Unavailable),
        (driver_error(1213), Unavailable),
        (InterfaceError("SELECT", {}, pymysql.InterfaceError(0, "")), Unavailable),
        (PoolTimeoutError("QueuePool limit"), Unavailable),
    ],
    ids=lambda value: str(getattr(value, "orig", value))[:40],
)
def test_translation(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind) as raised, translated():
        raise error
    assert type(raised.value) is kind


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), translated():
        raise KeyError(1)


def test_error_code_without_a_number() -> None:
    assert error_code(driver_error("no number")) == 0
    assert error_code(OperationalError("SELECT", {}, Exception(), False)) == 0


@pytest.mark.parametrize("url", ["", "localhost", "postgresql://h/db", "redis://h:1/0"])
def test_a_url_of_something_else_is_the_users_error(url: str) -> None:
    with pytest.raises(UsageError, match="FLASHSALE_MYSQL_URL: expected mysql://"):
        engine(url)


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql"])
def test_urls_of_the_family(scheme: str) -> None:
    pool = engine(f"{scheme}://u:p@h:1/d")
    assert pool.url.drivername == "mysql+pymysql"
    assert pool.url.query["charset"] == "utf8mb4"


def test_a_url_error_does_not_print_the_password() -> None:
    with pytest.raises(UsageError) as raised:
        engine("postgresql://u:secret@h/db")
    assert "secret" not in str(raised.value)


def test_no_statement_asks_for_a_function_that_a_server_may_lack() -> None:
    """MySQL has no MD5() and SHA1() from 9.6 on; PASSWORD() and ENCRYPT() went with 8.0."""
    gone = re.compile(r"\b(MD5|SHA1?|PASSWORD|OLD_PASSWORD|ENCRYPT|ENCODE|DES_ENCRYPT)\((?!\))")
    package = Path(flashsale.__file__).parent
    found = {path.name: gone.findall(path.read_text()) for path in package.rglob("*.py")}
    assert {name: names for name, names in found.items() if names} == {}
