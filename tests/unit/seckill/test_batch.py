"""A batch: what goes to seckill.lua, and what its reply means."""

import pytest

from flashsale import keys
from flashsale.lua.scripts import CLAIM_OUTCOMES
from flashsale.model import ID_MAX, Outcome
from flashsale.seckill.batch import Claimed, digest_of, make_batch, read_answers


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


def test_a_key_is_sent_as_its_digest_with_one_name_more() -> None:
    sessions, digest = ["login:token:a", "login:token:b"], digest_of("k")
    assert digest
    call = make_batch(7, sessions, ["11", "12"], 99, (5000, 60, 9000), ["", digest]).call
    assert call.args == [7, 99, "", "11", digest, "12", 5000, 60, 9000]
    assert call.keys[5:] == (*sessions, "seckill:idempotency:7")
    without = make_batch(7, sessions, ["11", "12"], 99, (5000, 60, 9000), ["", ""]).call
    assert without == make_batch(7, sessions, ["11", "12"], 99, (5000, 60, 9000)).call


@pytest.mark.parametrize(
    ("key", "is_valid"),
    [
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", True),
        ('"quoted"', True),
        ("x" * 255, True),
        ("x" * 256, False),
        ("two words", False),
        ("\u00e9", False),
        ("a\n", False),
    ],
)
def test_what_is_a_key(key: str, is_valid: bool) -> None:
    digest = digest_of(key)
    assert (digest is not None) is is_valid
    if digest is not None:
        assert len(digest) == 32
        assert digest != digest_of(key + "x")


def test_every_code_has_its_outcome() -> None:
    flat = [part for code in CLAIM_OUTCOMES for part in (code, "id")]
    assert [a and a.outcome for a in read_answers(flat)] == list(CLAIM_OUTCOMES.values())
    assert read_answers([0, str(ID_MAX)]) == [Claimed(Outcome.SOLD, str(ID_MAX))]


def test_nobody_behind_a_session_is_no_answer() -> None:
    assert read_answers([8, "", 1, ""]) == [None, Claimed(Outcome.SOLD_OUT)]


def test_a_permit_goes_last_with_its_key() -> None:
    batch = make_batch(7, ["login:token:a"], ["11"], 99, (5000, 60, 9000), permit="r:1")
    assert batch.call.args == [7, 99, "", "11", 5000, 60, 9000, "r:1"]
    assert batch.call.keys[-1] == keys.PERMIT
    renewed = batch.under("r:2")
    assert (renewed.permit, renewed.call.args) == ("r:2", [7, 0, "", "11", 5000, 60, 9000, "r:2"])
    assert renewed.call.keys == batch.call.keys
    assert batch.under("r:1") is batch, "the deadline stands under its own permit"
    assert batch.under("") is batch
    without = make_batch(7, ["login:token:a"], ["11"], 99, (5000, 60, 9000))
    assert without.under("r:2") is without, "whoever asks for no permit is not given one"


@pytest.mark.parametrize("lacks", ["permit", "books"])
def test_a_ledger_that_may_be_behind_says_what_it_lacks(lacks: str) -> None:
    assert read_answers([9, lacks]) == [Claimed(Outcome.SHED, behind=lacks)]


def test_unknown_code_raises() -> None:
    with pytest.raises(KeyError):
        read_answers([10, ""])


def test_half_a_pair_raises() -> None:
    with pytest.raises(ValueError, match="shorter"):
        read_answers([0, "1", 2])
