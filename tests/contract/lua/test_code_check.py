"""code_check.lua: a code works once, stands a few wrong tries, then is void."""

from typing import cast

from redis import Redis
from rig.sale import everything

from flashsale import keys
from flashsale.lua.scripts import script

CHECK = script("code_check")
CODE = keys.login_code("13800000001")


def check(ledger: Redis, given: str, tries_max: int = 3) -> int:
    return cast(int, ledger.eval(CHECK.text, 1, CODE, given, str(tries_max)))


def send(ledger: Redis, code: str = "012345") -> None:
    ledger.hset(CODE, mapping={"code": code, "tries": 0})
    ledger.expire(CODE, 100)


def test_right_once(ledger: Redis) -> None:
    send(ledger)
    assert [check(ledger, "012345"), check(ledger, "012345")] == [1, 0]
    assert everything(ledger) == {}


def test_digits_are_text(ledger: Redis) -> None:
    send(ledger)
    assert check(ledger, "12345") == 0


def test_a_wrong_try_leaves_the_code_and_its_expiry(ledger: Redis) -> None:
    send(ledger)
    assert check(ledger, "000000") == 0
    assert 0 < cast(int, ledger.ttl(CODE)) <= 100
    assert check(ledger, "012345") == 1


def test_the_last_wrong_try_voids_it(ledger: Redis) -> None:
    send(ledger)
    assert [check(ledger, "000000") for _ in range(3)] == [0, 0, 0]
    assert check(ledger, "012345") == 0
    assert everything(ledger) == {}


def test_without_a_code_nothing_is_right_and_nothing_written(ledger: Redis) -> None:
    assert check(ledger, "") == 0
    assert everything(ledger) == {}
