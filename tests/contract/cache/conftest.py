"""A cache to be killed and paused."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flashsale.stack.redis import RedisRole, RedisServer


@pytest.fixture
def own_cache(tmp_path: Path) -> Iterator[RedisServer]:
    """A cache of this test's own: to be killed, paused or starved."""
    with RedisServer(RedisRole.CACHE, tmp_path / "own-cache") as server:
        yield server
