"""seckill.lua on a real Redis: every answer, and that what is refused leaves no trace."""

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from rig.sale import (
    HOUR_MS,
    claim,
    claim_keys,
    everything,
    now_ms,
    open_sale,
    run,
    sold,
    stock,
)

from flashsale import keys
from flashsale.model import ID_MAX

SOLD, SOLD_OUT, DUPLICATE, NOT_BEGUN, ENDED, NOT_LOADED, PAUSED, LATE = range(8)
LATER = str(2**52)


# The answers ------------------------------------------------------------------------------------


def test_sold(ledger: Redis) -> None:
    open_sale(ledger, units=3)
    before = now_ms()
    assert claim(ledger, (7, 1001)) == [(SOLD, "1001")]
    assert stock(ledger) == 2
    assert sold(ledger) == {"7": "1001"}
    ((entry_id, fields),) = ledger.xrange(keys.STREAM_ORDERS)
    assert list(fields) == ["userId", "voucherId", "id", "ms"]
    assert fields == {"userId": "7", "voucherId": "1", "id": "1001", "ms": fields["ms"]}
    assert before - 1 <= int(fields["ms"]) <= now_ms() + 1
    assert abs(int(entry_id.split("-")[0]) - int(fields["ms"])) <= 1


def test_sold_out(ledger: Redis) -> None:
    open_sale(ledger, units=1)
    claim(ledger, (7, 1001))
    before = everything(ledger)
    assert claim(ledger, (8, 1002)) == [(SOLD_OUT, "")]
    assert everything(ledger) == before


@pytest.mark.parametrize("units", [0, -1])
def test_nothing_to_sell(ledger: Redis, units: int) -> None:
    open_sale(ledger, units=units)
    assert claim(ledger, (7, 1001)) == [(SOLD_OUT, "")]
    assert sold(ledger) == {}
    assert stock(ledger) == units


def test_duplicate_tells_the_order_that_is_held(ledger: Redis) -> None:
    open_sale(ledger)
    claim(ledger, (7, 1001))
    before = everything(ledger)
    assert claim(ledger, (7, 1002)) == [(DUPLICATE, "1001")]
    assert everything(ledger) == before


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"begins_in_ms": HOUR_MS}, NOT_BEGUN),
        ({"ends_in_ms": -1}, ENDED),
        ({"state": "closed"}, ENDED),
        ({"state": "paused"}, PAUSED),
        ({"state": "paused", "begins_in_ms": HOUR_MS}, PAUSED),
        ({"state": "paused", "ends_in_ms": -1}, PAUSED),
        ({"state": "paused", "units": 0}, PAUSED),
        ({"state": "a state nobody knows"}, ENDED),
        ({"begins_in_ms": HOUR_MS, "units": 0}, NOT_BEGUN),
        ({"ends_in_ms": -1, "units": 0}, ENDED),
    ],
    ids=str,
)
def test_states_of_the_sale(ledger: Redis, terms: dict[str, int | str], code: int) -> None:
    open_sale(ledger, **terms)  # type: ignore[arg-type]
    before = everything(ledger)
    assert claim(ledger, (7, 1001)) == [(code, "")]
    assert everything(ledger) == before


def test_not_loaded(ledger: Redis) -> None:
    assert claim(ledger, (7, 1001), (8, 1002)) == [(NOT_LOADED, ""), (NOT_LOADED, "")]
    assert everything(ledger) == {}


@pytest.mark.parametrize("missing", ["stock", "begin", "end", "state"])
def test_half_loaded_is_not_loaded(ledger: Redis, missing: str) -> None:
    open_sale(ledger)
    if missing == "stock":
        ledger.delete(keys.seckill_stock(1))
    else:
        ledger.hdel(keys.seckill_sale(1), missing)
    before = everything(ledger)
    assert claim(ledger, (7, 1001)) == [(NOT_LOADED, "")]
    assert everything(ledger) == before


@pytest.mark.parametrize(("field", "value"), [("begin", "soon"), ("end", "")])
def test_terms_that_are_no_times_are_not_loaded(ledger: Redis, field: str, value: str) -> None:
    open_sale(ledger)
    ledger.hset(keys.seckill_sale(1), field, value)
    assert claim(ledger, (7, 1001)) == [(NOT_LOADED, "")]
    assert stock(ledger) == 10


def test_past_the_deadline(ledger: Redis) -> None:
    open_sale(ledger)
    before = everything(ledger)
    assert claim(ledger, (7, 1001), deadline_ms=now_ms() - 2) == [(LATE, "")]
    assert everything(ledger) == before


@pytest.mark.parametrize(
    "terms",
    [{"state": "paused"}, {"begins_in_ms": HOUR_MS}, {"ends_in_ms": -1}, {"units": 0}],
    ids=str,
)
def test_the_deadline_outranks_the_sale(ledger: Redis, terms: dict[str, int | str]) -> None:
    """7 is what makes a replay final: it must not hide behind a state that may change."""
    open_sale(ledger, **terms)  # type: ignore[arg-type]
    assert claim(ledger, (7, 1001), deadline_ms=now_ms() - 2) == [(LATE, "")]


# Batches ----------------------------------------------------------------------------------------


def test_one_user_twice_in_a_batch(ledger: Redis) -> None:
    open_sale(ledger)
    assert claim(ledger, (7, 1001), (8, 1002), (7, 1003)) == [
        (SOLD, "1001"),
        (SOLD, "1002"),
        (DUPLICATE, "1001"),
    ]
    assert stock(ledger) == 8
    assert sold(ledger) == {"7": "1001", "8": "1002"}


def test_stock_smaller_than_the_batch(ledger: Redis) -> None:
    open_sale(ledger, units=2)
    codes = [code for code, _ in claim(ledger, *((user, 1000 + user) for user in range(1, 6)))]
    assert codes == [SOLD, SOLD, SOLD_OUT, SOLD_OUT, SOLD_OUT]
    assert stock(ledger) == 0
    assert sold(ledger) == {"1": "1001", "2": "1002"}


def test_a_largest_batch_goes_through(ledger: Redis) -> None:
    """2,000 is `ClaimSettings.batch_max`'s own limit; Lua's stack must bear it."""
    open_sale(ledger, units=5000)
    answers = claim(ledger, *((user, 10_000 + user) for user in range(1, 2001)))
    assert {code for code, _ in answers} == {SOLD}
    assert stock(ledger) == 3000
    assert len(sold(ledger)) == 2000


def test_vouchers_do_not_mix(ledger: Redis) -> None:
    open_sale(ledger, 1)
    open_sale(ledger, 2)
    assert claim(ledger, (7, 1001), voucher_id=1) == [(SOLD, "1001")]
    assert claim(ledger, (7, 1002), voucher_id=2) == [(SOLD, "1002")]
    assert sold(ledger, 1) == {"7": "1001"}
    assert sold(ledger, 2) == {"7": "1002"}


# Replays: the receipt outranks every state of the sale --------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"state": "paused"},
        {"state": "closed"},
        {"begin": 2**52},
        {"end": 1},
    ],
    ids=str,
)
def test_the_same_batch_replayed(ledger: Redis, change: dict[str, int | str]) -> None:
    open_sale(ledger, units=2)
    batch = ((7, 1001), (8, 1002), (7, 1003))
    deadline_ms = now_ms() + HOUR_MS
    claim(ledger, *batch, deadline_ms=deadline_ms)
    if change:
        ledger.hset(keys.seckill_sale(1), mapping=change)  # type: ignore[arg-type]
    before = everything(ledger)
    assert claim(ledger, *batch, deadline_ms=deadline_ms) == [
        (DUPLICATE, "1001"),
        (DUPLICATE, "1002"),
        (DUPLICATE, "1001"),
    ]
    assert everything(ledger) == before


def test_the_same_batch_replayed_past_its_deadline(ledger: Redis) -> None:
    open_sale(ledger, units=1)
    claim(ledger, (7, 1001), (8, 1002))
    before = everything(ledger)
    assert claim(ledger, (7, 1001), (8, 1002), deadline_ms=now_ms() - 2) == [
        (DUPLICATE, "1001"),
        (LATE, ""),
    ]
    assert everything(ledger) == before


def test_a_torn_command_that_executes_late_sells_nothing(ledger: Redis) -> None:
    """The replay past the deadline said `certainly not done`; the lost command arrives after it."""
    open_sale(ledger)
    torn = ((7, 1001), (8, 1002))
    deadline_ms = now_ms() - 2
    assert claim(ledger, *torn, deadline_ms=deadline_ms) == [(LATE, ""), (LATE, "")]
    before = everything(ledger)
    assert claim(ledger, *torn, deadline_ms=deadline_ms) == [(LATE, ""), (LATE, "")]
    assert everything(ledger) == before
    assert claim(ledger, (7, 1003)) == [(SOLD, "1003")], "a new try of the user's is free to buy"


def test_a_torn_command_after_its_replay_sold_sells_nothing_more(ledger: Redis) -> None:
    open_sale(ledger)
    assert claim(ledger, (7, 1001)) == [(SOLD, "1001")]
    before = everything(ledger)
    assert claim(ledger, (7, 1001)) == [(DUPLICATE, "1001")]
    assert everything(ledger) == before


# Refusals ---------------------------------------------------------------------------------------


def _spoil(ledger: Redis, name: str, kind: str) -> None:
    ledger.delete(name)
    match kind:
        case "string":
            ledger.set(name, "5")
        case "list":
            ledger.rpush(name, "x")
        case "set":
            ledger.sadd(name, "x")
        case "zset":
            ledger.zadd(name, {"x": 1})
        case "hash":
            ledger.hset(name, "x", "1")
        case "stream":
            ledger.xadd(name, {"x": "1"})


RIGHT_KINDS = ("string", "set", "hash", "hash", "stream")


@pytest.mark.parametrize("place", range(5), ids=["stock", "order", "receipt", "sale", "stream"])
@pytest.mark.parametrize("kind", ["string", "list", "set", "zset", "hash", "stream"])
def test_a_key_of_a_wrong_type_refuses_the_whole_batch(
    ledger: Redis, place: int, kind: str
) -> None:
    if kind == RIGHT_KINDS[place]:
        return
    open_sale(ledger)
    claim(ledger, (1, 1001))
    _spoil(ledger, claim_keys()[place], kind)
    before = everything(ledger)
    with pytest.raises(ResponseError, match=f"^REFUSED key {place + 1} is a {kind}"):
        claim(ledger, (7, 1002), (8, 1003))
    assert everything(ledger) == before


@pytest.mark.parametrize(
    "units",
    [
        "",
        "ten",
        "1.5",
        "1e3",
        "0x10",
        " 5",
        "5 ",
        "007",
        "+5",
        "nan",
        "inf",
        "-inf",
        "99999999999999999999",
        "5\n",
    ],
    ids=repr,
)
def test_a_stock_that_is_no_whole_number_is_refused(ledger: Redis, units: str) -> None:
    """Redis' DECR and Lua's tonumber disagree on some: whatever DECR would not take is refused."""
    open_sale(ledger, units=units)
    before = everything(ledger)
    with pytest.raises(ResponseError, match=r"^REFUSED"):
        claim(ledger, (7, 1001))
    assert everything(ledger) == before


def test_a_stream_that_takes_no_more_entries_sells_nothing(ledger: Redis) -> None:
    """The one write that can fail comes first: no unit leaves without an order that travels."""
    open_sale(ledger)
    last = 2**64 - 1
    ledger.xadd(keys.STREAM_ORDERS, {"x": "1"}, id=f"{last}-{last}")
    before = everything(ledger)
    with pytest.raises(ResponseError):
        claim(ledger, (7, 1001))
    assert everything(ledger) == before


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["1"],
        ["1", LATER],
        ["1", LATER, "7"],
        ["1", LATER, "7", "1001", "8"],
        ["1", "soon", "7", "1001"],
        ["1", "", "7", "1001"],
        ["1", "nan", "7", "1001"],
        ["1", "inf", "7", "1001"],
        ["1", "-1", "7", "1001"],
    ],
    ids=str,
)
def test_malformed_arguments_are_refused(ledger: Redis, args: list[str]) -> None:
    open_sale(ledger)
    before = everything(ledger)
    with pytest.raises(ResponseError, match=r"^REFUSED"):
        run(ledger, claim_keys(), args)
    assert everything(ledger) == before


@pytest.mark.parametrize("count", [0, 1, 4, 6])
def test_a_wrong_number_of_keys_is_refused(ledger: Redis, count: int) -> None:
    open_sale(ledger)
    before = everything(ledger)
    names = [*claim_keys(), "one more"][:count]
    with pytest.raises(ResponseError, match=r"^REFUSED"):
        run(ledger, names, ["1", LATER, "7", "1001"])
    assert everything(ledger) == before


# Large numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", [2**53 - 1, 2**53, 2**53 + 1, 2**53 + 3, 2**62 + 1, ID_MAX - 1, ID_MAX]
)
def test_large_ids_survive_as_exact_text(ledger: Redis, number: int) -> None:
    """A Lua number holds 53 bits: an id that once was one comes back as another."""
    open_sale(ledger, voucher_id=number)
    neighbours = ((number, number - 2), (number - 1, number))
    answers = claim(ledger, *neighbours, voucher_id=number)
    assert answers == [(SOLD, str(number - 2)), (SOLD, str(number))]
    assert claim(ledger, (number, 5), voucher_id=number) == [(DUPLICATE, str(number - 2))]
    assert sold(ledger, number) == {str(user): str(order) for user, order in neighbours}
    assert {e["voucherId"] for _, e in ledger.xrange(keys.STREAM_ORDERS)} == {str(number)}


@pytest.mark.parametrize("units", [2**31, 2**53])
def test_large_stocks_count_exactly(ledger: Redis, units: int) -> None:
    open_sale(ledger, units=units)
    assert claim(ledger, (7, 1001)) == [(SOLD, "1001")]
    assert stock(ledger) == units - 1


# The stream's end ---------------------------------------------------------------------------------


def test_a_stream_that_fills_up_in_the_middle_sells_no_further(ledger: Redis) -> None:
    """Three entries fit: three are sold, whoever came after is told 7, and the books balance."""
    open_sale(ledger, units=10)
    ledger.xadd(keys.STREAM_ORDERS, {"voucherId": "9"}, id=f"{2**64 - 1}-{2**64 - 4}")
    answers = claim(ledger, (1, 11), (2, 12), (1, 13), (3, 14), (4, 15), (4, 16), (2, 17))
    assert answers == [
        (SOLD, "11"),
        (SOLD, "12"),
        (DUPLICATE, "11"),
        (SOLD, "14"),
        (LATE, ""),
        (LATE, ""),
        (LATE, ""),
    ]
    assert sold(ledger) == {"1": "11", "2": "12", "3": "14"}
    assert stock(ledger) == 7


def test_more_pairs_than_one_call_takes(ledger: Redis) -> None:
    open_sale(ledger, units=10_000)
    before = everything(ledger)
    with pytest.raises(ResponseError, match="REFUSED"):
        claim(ledger, *((user, user) for user in range(1, 3_002)))
    assert everything(ledger) == before
    assert len(claim(ledger, *((user, user) for user in range(1, 3_001)))) == 3_000
    assert stock(ledger) == 7_000
