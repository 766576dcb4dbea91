"""A batch: what goes to seckill.lua, and what its reply means."""

import pytest

from flashsale.lua.scripts import CLAIM_OUTCOMES
from flashsale.model import ID_MAX, Outcome
from flashsale.seckill.batch import Claimed, make_batch, read_answers


def test_words_of_the_call() -> None:
    call = make_batch(
        7, ["login:token:a", "login:token:b"], ["11", "12"], 99, (5000, 60, 9000)
    ).call
    assert call.args == [7, 99, "", "11", "", "12", 5000, 60, 9000]
    assert call.keys == (
        "seckill:stock:7",
        "seckill:order:7",
        "seckill:receipt:7",
        "seckill:sale:7",
        "stream.orders",
        "login:token:a",
        "login:token:b",
    )
    assert call.command() == ("EVALSHA", call.script.sha, 7, *call.keys, *call.args)


def test_every_code_has_its_outcome() -> None:
    flat = [part for code in CLAIM_OUTCOMES for part in (code, "id")]
    assert [a and a.outcome for a in read_answers(flat)] == list(CLAIM_OUTCOMES.values())
    assert read_answers([0, str(ID_MAX)]) == [Claimed(Outcome.SOLD, str(ID_MAX))]


def test_nobody_behind_a_session_is_no_answer() -> None:
    assert read_answers([8, "", 1, ""]) == [None, Claimed(Outcome.SOLD_OUT)]


def test_unknown_code_raises() -> None:
    with pytest.raises(KeyError):
        read_answers([9, ""])


def test_half_a_pair_raises() -> None:
    with pytest.raises(ValueError, match="shorter"):
        read_answers([0, "1", 2])
