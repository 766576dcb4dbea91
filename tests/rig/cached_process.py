"""One process of many readers: `python -m rig.cached_process CACHE_URL MYSQL_URL READERS`.

Says "ready", waits for a line, reads shop 1 that many times at once, and says what came of it.
"""

import asyncio
import json
import sys
from typing import Any

import uvloop
from sqlalchemy import Connection, func, select

from flashsale.cache.client import CacheClient
from flashsale.cache.strategies import Strategy
from flashsale.settings import BloomSettings, CacheSettings
from flashsale.storage.mysql import Database, engine
from flashsale.storage.tables import shop

_SLOW_S = 0.15


async def main(cache_url: str, mysql_url: str, readers: int) -> None:
    """Read, and print the outcome as JSON."""
    database = Database(engine(mysql_url), threads_max=4)
    cache = CacheClient(cache_url, CacheSettings.load(), BloomSettings.load())

    async def load(shop_id: int) -> dict[str, Any] | None:
        def work(connection: Connection) -> dict[str, Any] | None:
            query = select(shop.c.id, shop.c.name, func.sleep(_SLOW_S)).where(shop.c.id == shop_id)
            row = connection.execute(query).first()
            return None if row is None else {"id": row.id, "name": row.name}

        return await database.run(work)

    shops = cache.entries("shop", load, strategy=Strategy.MUTEX, ttl_s=60)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    answers = await asyncio.gather(*(shops.read(1) for _ in range(readers)))
    told = {
        "loads": shops.loading.loads,
        "bodies": sorted({str(answer.body) for answer in answers}),
        "outcomes": {source.value: count for source, count in shops.outcomes.items()},
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    await cache.aclose()
    database.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
