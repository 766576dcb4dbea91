"""Rules between settings: one line that says what was expected."""

import pytest

from flashsale.errors import UsageError
from flashsale.settings import BloomSettings, CacheSettings, LockSettings


def test_a_lock_outlives_the_load_under_it() -> None:
    with pytest.raises(UsageError, match="lease_ms must be longer than") as caught:
        CacheSettings.load(lease_ms=100)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("FLASHSALE_CACHE_")


def test_a_lease_has_time_for_two_renewals() -> None:
    with pytest.raises(UsageError, match="at least twice renew_ms"):
        LockSettings.load(lease_ms=100, renew_ms=90)


def test_a_share_is_a_share() -> None:
    with pytest.raises(UsageError, match="FLASHSALE_BLOOM_FALSE_POSITIVES"):
        BloomSettings.load(false_positives=1.5)
