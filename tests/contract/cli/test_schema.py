"""`flashsale schema`: the tables, for stores that somebody else runs."""

import pytest
from sqlalchemy import create_engine, inspect
from typer.testing import CliRunner

from flashsale.cli.tree import tree
from flashsale.errors import UsageError
from flashsale.storage import tables


def test_creates_what_is_missing_and_can_be_repeated(blank_mysql_url: str) -> None:
    for _ in range(2):
        done = CliRunner().invoke(tree(), ["schema", "--mysql-url", blank_mysql_url])
        assert done.exit_code == 0, done.output
    engine = create_engine(blank_mysql_url)
    assert set(inspect(engine).get_table_names()) == set(tables.metadata.tables)
    engine.dispose()


def test_wants_to_know_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLASHSALE_MYSQL_URL", raising=False)
    done = CliRunner().invoke(tree(), ["schema"])
    assert isinstance(done.exception, UsageError)
