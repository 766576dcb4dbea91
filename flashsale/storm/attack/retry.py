"""Which answers make a user try again. Pure."""

from collections.abc import Collection

from flashsale.model import Outcome
from flashsale.storm.attack.answer import Answer

CONNECT = "connect"
REASONS = (
    Outcome.SHED.value,
    Outcome.RATE_LIMITED.value,
    Outcome.UNKNOWN.value,
    Outcome.NOT_OPEN.value,
    CONNECT,
)
"""What can be named; `unknown` is also no answer at all, `connect` no connection to ask over."""


def wants_retry(answer: Answer | None, reasons: Collection[str]) -> bool:
    """Whether a claim that ended so is made again. None: it was never made, so there is nothing
    to make again."""
    if answer is None:
        return False
    if answer.outcome.is_indeterminate:
        return Outcome.UNKNOWN.value in reasons
    return answer.outcome.value in reasons or (answer.error == CONNECT and CONNECT in reasons)
