"""Rows into MySQL in bulk: only those that are missing, many to a statement.

The statements are put together here rather than by the driver, which escapes value by value and
takes two and a half times as long. That is safe for generated rows alone, and checked: a
statement holds exactly the quotes that its template brings, and no backslash.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, Engine, func, select

from flashsale.errors import UsageError
from flashsale.seeding.dataset import Portion, Row
from flashsale.storage.mysql import Duplicate, transaction

CHUNK_ROWS = 10_000
"""Rows of one transaction: enough to make its fsync cheap, few enough to keep its undo small."""

STATEMENT_ROWS = 1_000
"""Rows of one INSERT: a few hundred kilobytes, far below any `max_allowed_packet`."""


def add_missing(pool: Engine, portion: Portion) -> Iterator[tuple[int, int]]:
    """Write the rows of `portion` that are not there yet; existing ones stay as they are.

    Yields (rows looked at, rows added) after each chunk's COMMIT, so that an interrupted run has
    whole chunks and the next one goes on from there. Raises UsageError where a row clashes with
    one that is not of this data set, Unavailable or Indeterminate for trouble with MySQL.
    """
    for start in range(0, portion.count, CHUNK_ROWS):
        ids = portion.ids[start : start + CHUNK_ROWS]
        try:
            with transaction(pool) as connection:
                missing = _missing(connection, portion, ids)
                _insert(connection, portion, missing)
        except Duplicate as error:
            raise UsageError(
                f"{portion.table.name} holds rows that clash with the data set "
                f"({error}); use --reset or an empty database"
            ) from error
        yield len(ids), len(missing)


def has_all(pool: Engine, portion: Portion) -> bool:
    """True where no row of `portion` is missing. Raises Unavailable or Indeterminate."""
    if not portion.count:
        return True
    with transaction(pool) as connection:
        return _present(connection, portion, portion.ids) == portion.count


def statement(portion: Portion, rows: Sequence[Row]) -> str:
    """One INSERT of `rows`. Raises ValueError for a value that could end its own quotes."""
    quoted = [isinstance(value, str) for value in rows[0]]
    template = "(" + ",".join("'%s'" if is_text else "%r" for is_text in quoted) + ")"
    values = ",".join([template % row for row in rows])
    if values.count("'") != 2 * sum(quoted) * len(rows) or "\\" in values:
        raise ValueError(f"a generated value of {portion.table.name} needs escaping")
    columns = ", ".join(portion.columns)
    return f"INSERT INTO {portion.table.name} ({columns}) VALUES {values}"  # noqa: S608 - checked above


def _missing(connection: Connection, portion: Portion, ids: range) -> Sequence[int]:
    present = _present(connection, portion, ids)
    if present == 0:
        return ids
    if present == len(ids):
        return ()
    key = portion.table.c[portion.columns[0]]
    found = set(connection.execute(select(key).where(key.between(ids[0], ids[-1]))).scalars())
    return [row_id for row_id in ids if row_id not in found]


def _present(connection: Connection, portion: Portion, ids: range) -> int:
    key = portion.table.c[portion.columns[0]]
    query = select(func.count()).where(key.between(ids[0], ids[-1]))
    return connection.execute(query).scalar_one()


def _insert(connection: Connection, portion: Portion, ids: Sequence[int]) -> None:
    for start in range(0, len(ids), STATEMENT_ROWS):
        rows = [portion.row(row_id) for row_id in ids[start : start + STATEMENT_ROWS]]
        connection.exec_driver_sql(
            statement(portion, rows), execution_options={"no_parameters": True}
        )
