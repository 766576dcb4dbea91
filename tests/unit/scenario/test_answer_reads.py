import pytest

from flashsale.model import ENDINGS, Ending, Outcome, Reading, Signing, ending
from flashsale.run.attempts import NEVER, Attempts
from flashsale.scenario.answer import read_reading, read_signing


@pytest.mark.parametrize(
    ("status", "cache", "meaning"),
    [
        (200, b"hit", Reading.HIT),
        (200, b"stale", Reading.STALE),
        (404, b"bloom", Reading.BLOOM),
        (404, b"null", Reading.NULL),
        (200, None, Reading.ANSWERED),
        (200, b"HIT from elsewhere", Reading.ANSWERED),
        (429, None, Outcome.RATE_LIMITED),
        (503, None, Outcome.SHED),
        (400, b"hit", Outcome.REFUSED),
        (502, None, Outcome.INDETERMINATE),
    ],
)
def test_a_reading_is_what_x_cache_says(status: int, cache: bytes | None, meaning: Ending) -> None:
    answer = read_reading(status, cache)
    assert (answer.outcome, answer.status, answer.order) == (meaning, status, None)


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (200, b'{"success":true}', Signing.SIGNED),
        (200, b'{"success":false,"errorMsg":"no"}', Outcome.REFUSED),
        (200, b"<html>", Outcome.REFUSED),
        (401, b"", Outcome.REFUSED),
        (429, b"", Outcome.RATE_LIMITED),
        (503, b'{"success":false}', Outcome.SHED),
        (500, b"", Outcome.INDETERMINATE),
    ],
)
def test_a_sign_in_counts_only_where_the_server_says_so(
    status: int, body: bytes, meaning: Ending
) -> None:
    answer = read_signing(status, body)
    assert (answer.outcome, answer.status, answer.order) == (meaning, status, None)
    assert (answer.error is None) == (status in (429, 503) or meaning is Signing.SIGNED)


def test_endings_are_told_apart_by_their_values() -> None:
    assert len({end.value for end in ENDINGS}) == len(ENDINGS)
    assert (ending("hit"), ending("sold")) == (Reading.HIT, Outcome.SOLD)
    assert ending("signed") is Signing.SIGNED
    with pytest.raises(ValueError, match="nonsense"):
        ending("nonsense")


def test_the_wait_for_a_connection_is_not_the_storms_lag() -> None:
    ledger = Attempts(3)
    for i, (due, sent) in enumerate([(0, 1_000), (0, 900_000), (0, NEVER)]):
        ledger.due_ns[i], ledger.sent_ns[i] = due, sent
    assert ledger.start_lag().max_us == 900
    ledger.free_ns.extend([NEVER, 898_000, NEVER])
    assert (ledger.start_lag().count, ledger.start_lag().max_us) == (2, 2)
