"""The words that the sale, the storm and the judge share."""

import hashlib
import re
from enum import StrEnum


class Outcome(StrEnum):
    """What became of one claim. The values are those of the `x-outcome` header.

    The last three are the storm's own: no server says them of itself.
    """

    SOLD = "sold"
    SOLD_OUT = "sold_out"
    DUPLICATE = "duplicate"
    NOT_OPEN = "not_open"
    ENDED = "ended"
    PAUSED = "paused"
    RATE_LIMITED = "rate_limited"
    NOT_LOADED = "not_loaded"
    SHED = "shed"
    UNKNOWN = "unknown"
    REFUSED = "refused"  # a 4xx without an outcome: certainly not done
    UNSENT = "unsent"  # no connection, or never written: certainly not done
    INDETERMINATE = "indeterminate"  # sent, and no answer that could be read

    __hash__ = str.__hash__  # Enum's own is written in Python, and each claim is counted by this

    @property
    def is_expected(self) -> bool:
        """True for an answer that a healthy sale gives."""
        return self in _EXPECTED

    @property
    def is_indeterminate(self) -> bool:
        """True where an order may or may not have come of it."""
        return self in _INDETERMINATE


_EXPECTED = frozenset(
    {
        Outcome.SOLD,
        Outcome.SOLD_OUT,
        Outcome.DUPLICATE,
        Outcome.NOT_OPEN,
        Outcome.ENDED,
        Outcome.PAUSED,
        Outcome.RATE_LIMITED,
    }
)
_INDETERMINATE = frozenset({Outcome.UNKNOWN, Outcome.INDETERMINATE})


class Reading(StrEnum):
    """How the answer to one read came about. All but the last are values of `x-cache`."""

    HIT = "hit"
    STALE = "stale"
    LOAD = "load"
    WAIT = "wait"
    NULL = "null"
    BLOOM = "bloom"
    ANSWERED = "answered"  # by a server that does not say how

    @property
    def is_expected(self) -> bool:
        """True: every one of them is an answer."""
        return True

    @property
    def is_indeterminate(self) -> bool:
        """False: a read changes nothing that could be in doubt."""
        return False


class Signing(StrEnum):
    """What became of one daily sign-in, where nothing went wrong with it."""

    SIGNED = "signed"  # that user was here today, be it for the first time or not

    @property
    def is_expected(self) -> bool:
        """True."""
        return True

    @property
    def is_indeterminate(self) -> bool:
        """False: once more changes nothing, so nobody has to know."""
        return False


class Doing(StrEnum):
    """What became of a step of a shop's own (`login`, `cart`, `pay`, `cancel`) that went well."""

    DONE = "done"

    @property
    def is_expected(self) -> bool:
        """True."""
        return True

    @property
    def is_indeterminate(self) -> bool:
        """False: it was answered."""
        return False


Ending = Outcome | Reading | Signing | Doing
"""How an attempt of a storm ended. No two of them share a value."""

ENDINGS: tuple[Ending, ...] = (*Reading, *Signing, *Doing, *Outcome)
"""All of them, in the order in which they are shown."""


def ending(value: str) -> Ending:
    """The ending with this value. Raises ValueError where there is none."""
    return _ENDING_OF[value] if value in _ENDING_OF else Outcome(value)


_ENDING_OF = {end.value: end for end in ENDINGS}


class OrderStatus(StrEnum):
    """Where an order is on its way from receipt to row."""

    QUEUED = "QUEUED"
    CONFIRMED = "CONFIRMED"
    FAILED = "FAILED"


class PayStatus:
    """`tb_voucher_order.status`, the family's numbers."""

    UNPAID = 1
    PAID = 2
    USED = 3
    CANCELLED = 4
    REFUNDING = 5
    REFUNDED = 6


LIVE_STATUSES = (PayStatus.UNPAID, PayStatus.PAID, PayStatus.USED, PayStatus.REFUNDING)
"""An order in one of these holds a unit of stock and its user's one place."""


class Verdict(StrEnum):
    """What a run or a check amounts to."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    INVALID = "invalid"
    UNKNOWN = "unknown"


ID_MAX = 2**63 - 1
"""The largest id of a user, a voucher or an order: a signed 64-bit column."""

UNITS_MAX = 2**31 - 1
"""The largest stock of one voucher: a signed 32-bit column."""


TEXT_ID_BYTES_MAX = 128
_TEXT_IDS_FROM = 2**62
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[0-9A-Fa-f]{32}")


def id_of(text: str) -> int:
    """A number for an id of any text: its own where it is one, else one from 2^62 on that follows
    from the text alone, so that two who read the same id apart have the same number for it. A UUID
    is the same with and without its dashes, in capitals and small letters."""
    number = parse_id(text)
    if number is not None and str(number) == text:
        return number
    if len(text) in (32, 36) and _UUID.fullmatch(text):
        text = text.replace("-", "").lower()
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return _TEXT_IDS_FROM | int.from_bytes(digest, "big") >> 2


def text_id(text: str) -> str | None:
    """`text`, if it can be an id in somebody's shop: printable, without quotes or backslashes, of
    at most TEXT_ID_BYTES_MAX bytes; else None."""
    if text.isalnum() and text.isascii() and len(text) <= TEXT_ID_BYTES_MAX:
        return text  # what most are, told soonest
    fits = text.isprintable() and 0 < len(text) <= TEXT_ID_BYTES_MAX
    if not fits or '"' in text or "\\" in text:
        return None
    return text if text.isascii() or len(text.encode()) <= TEXT_ID_BYTES_MAX else None


def parse_id(text: str) -> int | None:
    """The id written in `text`, or None unless it is decimal ASCII for 1 … 2^63−1."""
    if not (0 < len(text) <= 19 and text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if 1 <= number <= ID_MAX else None


class Durability(StrEnum):
    """When an order is acknowledged: by `appendfsync` of the ledger, and by its replicas."""

    ALWAYS = "always"  # when it is on the disk
    EVERYSEC = "everysec"  # when it is in the kernel; the disk has it within a second or two
    REPLICATED = "replicated"  # when it is on the disk, and a replica has it

    @property
    def appendfsync(self) -> str:
        """What the ledger's `appendfsync` is then."""
        return "everysec" if self is Durability.EVERYSEC else "always"
