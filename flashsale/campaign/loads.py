"""How often the database was asked for a shop, by its own count: exact, or not at all.

performance_schema's sums by digest lose statements, without saying so: every thread adds to the
one row of a digest, and the server does that without a lock, so of two that add at once one is
lost. What loses none is the history of statements, a ring in which each statement takes a place of
its own. It is read from a mark on, a SELECT of ours: while the mark is in the ring, so is all that
came after it. Com_select, which the server keeps for each thread and adds up when asked, is the
witness: SELECTs that it counts and the history has not make the count unknown. Those of prepared
statements come without a text, and are counted where the statements themselves are listed.
"""

import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pymysql

from flashsale.store_urls import MySQLConnection, mysql_arguments, open_mysql, read_mysql_url

_NAME = r"(?:`?\w+`? ?\. ?)*"
_VALUE = r"(?:\?|\d+)"
_LOAD = re.compile(
    rf"SELECT\b.*\bFROM {_NAME}`?tb_shop`?(?: (?:AS )?`?\w+`?)? WHERE {_NAME}`?id`? ?"
    rf"(?:= ?{_VALUE}|IN ?\( ?{_VALUE} ?\))(?: LIMIT .*)?;?",
    re.IGNORECASE | re.DOTALL,
)
_SELECT = "statement/sql/select"
_PAUSE_S, _LOOKS_MAX = 0.3, 30
_QUERY_TIMEOUT_S = 30

_HISTORY = """\
SELECT event_name, digest_text, COALESCE(current_schema = DATABASE(), 0) AS ours, COUNT(*)
FROM performance_schema.events_statements_history_long
WHERE timer_end > (SELECT MAX(timer_end) FROM performance_schema.events_statements_history_long
                   WHERE digest_text LIKE %(mark)s)
GROUP BY event_name, digest_text, ours"""
_MARKED = """\
SELECT COUNT(*) FROM performance_schema.events_statements_history_long
WHERE digest_text LIKE %(mark)s"""
_PREPARED = """\
SELECT owner_thread_id, statement_id, sql_text, count_execute
FROM performance_schema.prepared_statements_instances"""

NOT_KEPT = (
    "the database keeps no history of statements that could be read "
    "(performance_schema with the consumer events_statements_history_long)"
)
OVERRUN = "more statements came than the database's history holds (events_statements_history_long)"
UNSEEN = "the database ran SELECTs that its history does not show, so loads may be among them"

Prepared = Mapping[tuple[int, int, str], int]
"""How often each prepared statement was executed, by its thread, id and text."""


@dataclass(frozen=True)
class DatabaseLoads:
    """Loads by the database's count; None where it would not be exact, and `why`."""

    loads: int | None
    why: str = ""


class LoadCount:
    """Counts from where it is made on."""

    def __init__(self, mysql_url: str) -> None:
        place = read_mysql_url(mysql_url, "FLASHSALE_MYSQL_URL")
        self._arguments = mysql_arguments(place, read_timeout_s=_QUERY_TIMEOUT_S)
        self._mark = f"flashsale_count_{secrets.token_hex(8)}"
        self._marked: tuple[int, Prepared] | None = None
        try:
            with _connected(self._arguments) as database:
                self._marked = _marked(database, self._mark)
        except pymysql.MySQLError:
            pass

    def __repr__(self) -> str:
        return f"<LoadCount {self._mark}>"

    def settled(self) -> DatabaseLoads:
        """The loads since then, when no more come."""
        if self._marked is None:
            return DatabaseLoads(None, NOT_KEPT)
        last = _count(self._arguments, self._mark, *self._marked)
        for _ in range(_LOOKS_MAX):
            time.sleep(_PAUSE_S)
            now = _count(self._arguments, self._mark, *self._marked)
            if now == last and now.why != UNSEEN:  # what runs is not in the history yet
                break
            last = now
        return last


def is_load(statement: str) -> bool:
    """Whether a statement, or its digest, asks for one shop by its id. Pure."""
    return _LOAD.fullmatch(" ".join(statement.split())) is not None


@contextmanager
def _connected(arguments: Mapping[str, Any]) -> Iterator[MySQLConnection]:
    database = open_mysql(**arguments, autocommit=True)
    try:
        yield database
    finally:
        database.close()


def _rows(database: MySQLConnection, query: str, **values: str) -> Sequence[Any]:
    with database.cursor() as cursor:
        cursor.execute(query, values or None)
        return cursor.fetchall()


def _marked(database: MySQLConnection, mark: str) -> tuple[int, Prepared] | None:
    """Leave the mark; the SELECTs and the executions before it. None where it is not to be found.

    SELECTs under way here may be in the history and in this number too: that is no loss.
    """
    _rows(database, f"SELECT 1 AS {mark}")
    selects, prepared = _selects(database), _prepared(database)
    ((found,),) = _rows(database, _MARKED, mark=f"%AS `{mark}`%")
    return (selects, prepared) if found else None


def _count(
    arguments: Mapping[str, Any], mark: str, selects_before: int, before: Prepared
) -> DatabaseLoads:
    where = f"%AS `{mark}`%"
    try:
        with _connected(arguments) as database:
            prepared = _prepared(database)
            selects = _selects(database) - selects_before
            history = _rows(database, _HISTORY, mark=where)
            ((found,),) = _rows(database, _MARKED, mark=where)
            if not found:
                return DatabaseLoads(None, OVERRUN)
    except pymysql.MySQLError:
        return DatabaseLoads(None, NOT_KEPT)
    executed = [(key[2], n - before.get(key, 0)) for key, n in prepared.items()]
    seen = sum(n for event, digest, _, n in history if event == _SELECT or _is_select(digest))
    seen += sum(n for told, n in executed if _is_select(told))
    if seen < selects:
        return DatabaseLoads(None, UNSEEN)
    loads = sum(n for _, digest, ours, n in history if ours and is_load(digest or ""))
    return DatabaseLoads(loads + sum(n for told, n in executed if is_load(told)))


def _is_select(statement: str | None) -> bool:
    return statement is not None and statement.lstrip("( \n\t")[:6].upper() == "SELECT"


def _selects(database: MySQLConnection) -> int:
    ((_, selects),) = _rows(database, "SHOW GLOBAL STATUS LIKE 'Com_select'")
    return int(selects)


def _prepared(database: MySQLConnection) -> Prepared:
    rows = _rows(database, _PREPARED)
    return {(thread, number, told): int(n) for thread, number, told, n in rows}
