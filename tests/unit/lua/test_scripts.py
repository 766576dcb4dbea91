"""The loader: a script's text, and the digest that EVALSHA asks for."""

from hashlib import sha1

import pytest

from flashsale.lua.scripts import BEHIND, CLAIM_OUTCOMES, REFUSED, script
from flashsale.model import Outcome


def test_digest_is_redis() -> None:
    seckill = script("seckill")
    digest = sha1(seckill.text.encode(), usedforsecurity=False).hexdigest()
    assert (seckill.name, seckill.sha) == ("seckill", digest)
    assert script("seckill") is seckill, "read once"


def test_a_script_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        script("nothing")


def test_the_familys_codes() -> None:
    """0, 1 and 2 mean elsewhere what they mean here; two codes are shed: too late, and behind."""
    assert [CLAIM_OUTCOMES[code] for code in (0, 1, 2)] == [
        Outcome.SOLD,
        Outcome.SOLD_OUT,
        Outcome.DUPLICATE,
    ]
    shed = [code for code, outcome in CLAIM_OUTCOMES.items() if outcome is Outcome.SHED]
    assert len(shed) == 2
    assert BEHIND in shed
    assert len(set(CLAIM_OUTCOMES.values())) == len(CLAIM_OUTCOMES) - 1


def test_refusals_begin_with_one_word() -> None:
    texts = [script(name).text for name in ("seckill", "sale_load", "dead_letter")]
    assert all(f"error_reply('{REFUSED} " in text for text in texts)
    assert all("error_reply(" not in text.replace(f"error_reply('{REFUSED} ", "") for text in texts)
