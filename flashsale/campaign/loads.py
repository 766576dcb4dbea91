"""How often the database was asked for a shop, by its own count.

What counts is the statement: the digest table of performance_schema tells each SELECT of a shop by
its id, also one that finds nothing. The rows read of MariaDB's user statistics miss those, and
Com_select counts everybody's SELECTs of everything.
"""

import time

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from flashsale.storage.mysql import engine

_LOAD = "SELECT %FROM `tb_shop` WHERE `tb_shop` . `id` = ?"
_COUNT = """\
SELECT COALESCE(SUM(count_star), 0) FROM performance_schema.events_statements_summary_by_digest
WHERE schema_name = DATABASE() AND RTRIM(digest_text) LIKE :load"""
_PAUSE_S, _LOOKS_MAX = 0.3, 30


class LoadCount:
    """Counts from where it is made on."""

    def __init__(self, mysql_url: str) -> None:
        self._engine = engine(mysql_url)
        self._before = _loads(self._engine)

    def __repr__(self) -> str:
        return f"<LoadCount before={self._before}>"

    def settled(self) -> int | None:
        """The loads since then, when no more come; None where the database does not count."""
        if self._before is None:
            return None
        last = _loads(self._engine)
        for _ in range(_LOOKS_MAX):
            time.sleep(_PAUSE_S)
            now = _loads(self._engine)
            if now == last:
                break
            last = now
        self._engine.dispose()
        return None if last is None else last - self._before


def _loads(pool: Engine) -> int | None:
    try:
        with pool.connect() as connection:
            if not connection.execute(text("SELECT @@performance_schema")).scalar_one():
                return None
            return int(connection.execute(text(_COUNT), {"load": _LOAD}).scalar_one())
    except DBAPIError:
        return None
