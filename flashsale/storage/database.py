"""MySQL from asyncio: short transactions on a bounded number of threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine

from flashsale.storage.mysql import transaction

T = TypeVar("T")


class Database:
    """An engine and the threads that use it; at most `threads_max` transactions at a time."""

    def __init__(self, pool: Engine, *, threads_max: int) -> None:
        self._pool = pool
        self._threads = ThreadPoolExecutor(threads_max, thread_name_prefix="mysql")

    def __repr__(self) -> str:
        return f"<Database {self._pool.url!r}>"

    async def run(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, run in one transaction.

        Raises Duplicate, Unavailable or Indeterminate, as `storage.mysql.transaction` does.
        """

        def in_transaction() -> T:
            with transaction(self._pool) as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._threads, in_transaction)

    def close(self) -> None:
        """Wait for the transactions under way, then close every connection."""
        self._threads.shutdown()
        self._pool.dispose()
