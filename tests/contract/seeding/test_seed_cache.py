"""What seeding and warming do to the cache: no row is denied, nothing older is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flashsale import keys
from flashsale.catalog.storefront import LOCK
from flashsale.errors import UnreachableError
from flashsale.seeding import load
from flashsale.seeding.warm import StorefrontCache, storefront_cache
from flashsale.settings import CatalogSettings

if TYPE_CHECKING:
    from tests.contract.seeding.conftest import Lab

STRANGER = "somebody:else"


def known(lab: Lab, shop_id: int) -> bool | None:
    """What the filter of shops says; None without one."""
    with storefront_cache(lab.urls) as cache:
        return cache._run(lambda: cache._parts.shops.ids.check([shop_id]))[0]


def test_seeding_tells_the_filters(lab: Lab) -> None:
    assert known(lab, 1) is None
    lab.seed(users=1)
    assert [known(lab, shop_id) for shop_id in (1, 14, 15)] == [True, True, False]
    lab.seed(users=1, shops=20)
    assert [known(lab, shop_id) for shop_id in (14, 20, 21)] == [True, True, False]


def test_no_row_is_written_before_the_filter_knows_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.seed(users=1)

    def interrupted(self: StorefrontCache, cache: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StorefrontCache, "refresh", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab.seed(users=1, shops=40)
    assert lab.count("tb_shop") == 40
    assert known(lab, 40) is True


def test_what_was_cached_of_older_rows_goes(lab: Lab) -> None:
    lab.seed(users=1)
    lab.warm()
    null, lock = keys.cache_entry("shop", 15), keys.cache_lock("shop", 15)
    for key in (null, lock, keys.order_lock(1), STRANGER):
        lab.cache.set(key, "null")
    assert not lab.seed(users=1).changed
    assert lab.cache.exists(null, keys.CACHE_BOOT, keys.shop_geo(1)) == 3, "nothing changed"
    lab.seed(users=1, shops=15)
    assert not lab.cache.exists(null, lock, keys.CACHE_BOOT, keys.shop_geo(1))
    assert lab.cache.exists(keys.order_lock(1), STRANGER) == 2


def test_more_users_leave_the_cache_alone(lab: Lab) -> None:
    lab.seed(users=1)
    lab.warm()
    before = set(lab.cache.scan_iter())
    lab.seed(users=5)
    assert set(lab.cache.scan_iter()) == before


def test_a_reset_empties_the_cache_of_ours(lab: Lab) -> None:
    lab.seed(users=1, shops=30)
    lab.warm()
    lab.cache.set(STRANGER, "1")
    lab.cache.set(keys.order_lock(1), "c1 7")
    lab.seed(users=1, shops=3, reset=True)
    left = {key for key in lab.cache.scan_iter() if not key.startswith("bloom:")}
    assert left - {keys.lock_wake(LOCK)} == {STRANGER, keys.order_lock(1)}
    assert [known(lab, shop_id) for shop_id in (3, 30)] == [True, False]


def test_warming_fills_filters_indexes_and_hot_entries(lab: Lab) -> None:
    lab.seed(users=1)
    lab.cache.flushall()
    hot = CatalogSettings().hot_shops
    for _ in range(2):
        report = lab.warm()
        assert report.cached == {"ids in filters": 18, "geo indexes": 10, "hot entries": hot + 2}
        entries = {key for key in lab.cache.scan_iter() if key.startswith("cache:shop:")}
        assert entries == {keys.cache_entry("shop", n) for n in range(1, hot + 1)}
        assert lab.cache.zcard(keys.shop_geo(4)) == 3, "shops 4 and 14, and the placeholder"
        assert lab.cache.get(keys.CACHE_BOOT) == lab.sql("SELECT id FROM tb_dataset")[0][0]


def test_the_default_set_is_that_of_the_issue(lab: Lab) -> None:
    stages = {stage.name: stage.total for stage in lab.seed().stages}
    assert (stages["users"], stages["shops"], stages["shop types"]) == (1_005, 14, 10)
    assert (stages["blogs"], stages["sales"]) == (4, 1)
    assert {"shops", "blogs", "vouchers"} <= load.CACHED <= set(stages)


def test_a_cache_that_goes_away_is_one_line(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.seed(users=1)
    urls = lab.urls.model_copy(update={"cache_url": "redis://127.0.0.1:1/0"})
    with (
        storefront_cache(urls) as cache,
        pytest.raises(UnreachableError, match=r"the cache cannot be filled: .*goes on from here"),
    ):
        cache.refresh(lab.cache)
