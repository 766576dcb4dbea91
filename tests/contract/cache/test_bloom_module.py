"""The filter on a server that has the BF commands: found by itself, same promises."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from rig.versions import Versions, client, kind

from flashsale import keys
from flashsale.cache.client import CacheClient
from flashsale.cache.entry import Source
from flashsale.cache.strategies import Strategy
from flashsale.settings import BloomSettings, CacheSettings
from flashsale.stack.redis import RedisServer

pytestmark = pytest.mark.anyio

SOURCE = Path(__file__).resolve().parents[2] / "rig" / "bf_module.c"
META, *SLOTS = keys.bloom("thing")


@pytest.fixture
def with_module(own_cache: RedisServer, tmp_path: Path) -> RedisServer:
    """A cache that has loaded a module with RedisBloom's commands."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the module with")
    library = tmp_path / "bf.so"
    subprocess.run(
        [compiler, "-std=c11", "-Wall", "-shared", "-fPIC", "-o", library, SOURCE], check=True
    )
    assert own_cache.process is not None
    own_cache.process.kill()
    prepare = own_cache.prepare()
    with_it = replace(prepare, arguments=[*prepare.arguments, "--loadmodule", library])
    own_cache.prepare = lambda: with_it  # type: ignore[method-assign]
    return own_cache.start()


async def test_it_is_found_and_used(with_module: RedisServer) -> None:
    with Redis.from_url(with_module.url, protocol=2, decode_responses=True) as raw:
        async with client(with_module.url) as mine:
            bloom = mine.bloom("thing")
            assert await bloom.check([1]) == [None]
            assert await bloom.rebuild([[1, 2], [2**63 - 1]], expected=3) == 3
            assert raw.hget(META, "kind:0") == "bf"
            assert await bloom.check([1, 2, 2**63 - 1, 3]) == [True, True, True, False]
            await bloom.add([3])
            assert await bloom.check([3]) == [True]
            assert bloom.saturation is not None
            saturation = await bloom.measure()
            assert saturation is not None
            assert (saturation.estimated_ids, saturation.capacity) == (4, 10_000)
            assert await bloom.rebuild([[3]], expected=1) == 1
            assert await bloom.check([1, 3]) == [False, True]
            assert sum(raw.exists(slot) for slot in SLOTS) == 1
            raw.delete(*SLOTS)
            assert await bloom.check([3]) == [None], "absent means unknown, here too"
            await bloom.add([4])
            assert await bloom.check([4]) == [None]


async def test_reads_pass_through_it(with_module: RedisServer) -> None:
    shelf = Versions(1)
    async with client(with_module.url) as mine:
        things = kind(mine, shelf, Strategy.PASS_THROUGH)
        await mine.bloom("thing").rebuild([[1]], expected=1)
        assert (await things.read(2)).source is Source.BLOOM
        assert (await things.read(1)).source is Source.LOAD
        assert (await things.read(1)).source is Source.HIT


async def test_a_filter_changes_its_kind_by_a_rebuild(with_module: RedisServer) -> None:
    settings = BloomSettings.load(settle_ms=0, module=False)
    plain = CacheClient(with_module.url, CacheSettings.load(), settings)
    async with client(with_module.url) as mine:
        await plain.bloom("thing").rebuild([[1]], expected=1)
        assert await mine.bloom("thing").check([1, 2]) == [True, False]
        await mine.bloom("thing").rebuild([[2]], expected=1)
        assert await plain.bloom("thing").check([1, 2]) == [False, True]
    await plain.aclose()
