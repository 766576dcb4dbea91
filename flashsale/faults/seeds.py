"""Seeds of chaos, purely: which faults one makes, what it came to, the fewest of its faults that
still fail, and the table of all of them."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from statistics import median
from typing import Any

from flashsale.errors import ExitCode, UsageError, worst
from flashsale.report.ci import cell
from flashsale.scenario.fault import KINDS, LedgerForm, PlannedFault, role_of, trouble_with
from flashsale.scenario.table import suggestion

REPLICAS, WORKERS = 2, 2
"""A stack for chaos: the fewest of each that can stand in for one another."""

_FIRST, _LAST = 0.12, 0.40
"""Faults begin in this part of the storm, so that it goes on when they are healed."""

_FOR_S = (0.3, 2.0)
_FOR_SHARE = 0.25
"""They last so long, and no more than this share of the storm."""

_TO_REPLICA, _TO_LEDGER, _TO_MYSQL = "nginx->r1", "r1->ledger", "c1->mysql"
_LINKS = (_TO_REPLICA, _TO_LEDGER, _TO_MYSQL, "c1->ledger", "replica->ledger", "worker->mysql")

_WHOM: dict[str, Sequence[str]] = {
    "kill": ("ledger", "cache", "mysql", "nginx", "r1", "replica", "c1", "worker"),
    "stop": ("ledger", "cache", "mysql", "nginx", "r1", "replica", "c1", "worker"),
    "restart": ("ledger", "cache", "mysql", "r1", "c1", "worker"),
    "pause_past_lease": ("c1",),
    "memory_limit": ("r1", "c1"),
    "power_cut": ("ledger", "mysql"),
    "slow_fsync": ("ledger", "mysql"),
    "failing_fsync": ("ledger", "mysql"),
    "disk_full": ("ledger", "mysql"),
    "clock": ("r1", "c1", "ledger"),
    "older_copy": ("ledger",),
    "kill_connections": ("ledger", "cache", "mysql"),
    "pause_clients": ("ledger", "cache"),
    "out_of_memory": ("ledger", "cache"),
    "read_only": ("ledger", "cache", "mysql"),
    "lock_rows": ("mysql",),
    "drop_group": ("ledger",),
    "wrong_type": ("ledger",),
    "flush": ("cache", "ledger"),
    "trim": ("ledger",),
    "delete": ("ledger",),
    **{what: _LINKS for what, kind in KINDS.items() if kind.is_of_links},
}
"""What is drawn, and for whom: faults under which the system promises every rule of `verify`, but
for orders that a ledger forgets before they are rows."""

_ON_REQUEST: dict[str, Sequence[str]] = {"poison": ("ledger",)}
"""What is made only where it is asked for by name: it leaves dead letters, which `verify` finds."""


_IN_ADDITION: dict[LedgerForm, dict[str, Sequence[str]]] = {
    LedgerForm.SERVER: {},
    LedgerForm.PAIR: {
        "kill": ("ledger-2",),
        "stop": ("ledger-2",),
        "fail_over": ("ledger",),
        "cut_replica": ("ledger",),
        "isolate": ("ledger",),
    },
    LedgerForm.CLUSTER: {
        "kill": ("ledger-5",),
        "stop": ("ledger-5",),
        "fail_over": ("ledger",),
        "cut_replica": ("ledger",),
    },
}
"""What is drawn of a ledger of several nodes: `ledger-2` begins as the replica of the primary, and
`ledger-5` as that of voucher 1's master."""


@dataclass(frozen=True)
class Asked:
    """What chaos is to draw from: `only` some kinds, or all but those `left_out`; so many at once,
    or one or two; of those that befall a stack whose ledger is of this `form`."""

    only: Sequence[str] = ()
    at_once: int | None = None
    left_out: Sequence[str] = ()
    form: LedgerForm = LedgerForm.SERVER

    @classmethod
    def of(
        cls,
        only: Sequence[str],
        at_once: int | None,
        form: LedgerForm = LedgerForm.SERVER,
    ) -> "Asked":
        """Raises UsageError for a kind that there is not."""
        for what in only:
            if what not in KINDS:
                raise UsageError(
                    f"--fault: found {what!r}{suggestion(what, list(KINDS))}; "
                    f"expected one of {', '.join(KINDS)}"
                )
        asked = cls(tuple(only), at_once, form=form)
        for what in only:
            if not replace(asked, only=[what]).catalogue():
                raise UsageError(f"--fault: {trouble_with(what, 'ledger', form)}")
        return asked

    def without_compiler(self) -> "Asked":
        """The same without those that a machine without a C compiler cannot make."""
        return replace(self, left_out=[what for what in _WHOM if KINDS[what].needs_compiler])

    def catalogue(self) -> list[tuple[str, str]]:
        """Every pair of what and whom that can be drawn, in a fixed order."""
        more = _IN_ADDITION[self.form]
        whom = {what: (*_WHOM.get(what, ()), *more.get(what, ())) for what in (*_WHOM, *more)}
        if self.only:
            whom = {what: (*whom.get(what, ()), *_ON_REQUEST.get(what, ())) for what in self.only}
        return [
            (what, one)
            for what, some in whom.items()
            for one in some
            if what not in self.left_out and not trouble_with(what, one, self.form)
        ]


EVERYTHING = Asked()


def compose(seed: int, last_s: float, asked: Asked = EVERYTHING) -> tuple[PlannedFault, ...]:
    """The faults of a seed, for a storm that begins something new until `last_s`.

    The same seed makes the same faults. No two befall the same process or link: one would keep the
    other from being made.
    """
    rng = random.Random(f"faults {seed}")
    left, found = asked.catalogue(), []
    kinds = sorted({what for what, _ in left})
    for _ in range(asked.at_once or rng.choice((1, 2))):
        kinds = [kind for kind in kinds if any(what == kind for what, _ in left)]
        if not kinds:
            break
        kind = rng.choice(kinds)  # every kind as often as any other, however many it can befall
        what, whom = rng.choice([pair for pair in left if pair[0] == kind])
        found.append(_planned(rng, what, whom, last_s))
        left = [pair for pair in left if not _meet(pair[1], whom)]
    return tuple(found)


def _planned(rng: random.Random, what: str, whom: str, last_s: float) -> PlannedFault:
    kind = KINDS[what]
    at_ms = round(1000 * rng.uniform(_FIRST * last_s, _LAST * last_s))
    longest_s = max(_FOR_S[0], min(_FOR_S[1], _FOR_SHARE * last_s))
    for_ms = round(1000 * rng.uniform(_FOR_S[0], longest_s))
    drawn = {
        "latency_ms": rng.choice((20, 200, 1_500)),
        "jitter_ms": rng.choice((0, 100)),
        "kb_per_s": rng.choice((1, 8, 64)),
        "slice_bytes": rng.choice((1, 7, 64)),
        "key": rng.choice(("stock", "order", "receipt", "sale")),
        "shift_ms": rng.choice((-30_000, -1_500, 1_500, 30_000)),
    }
    lasting = {} if kind.lasts == "never" else {"for": f"{for_ms}ms"}
    options = {name: drawn[name] for name in kind.options}
    return PlannedFault.made(at=f"{at_ms}ms", what=what, whom=whom, **lasting, **options)


def _meet(one: str, other: str) -> bool:
    """Whether two faults of these would befall the same process, or the same link."""
    ends, others = one.split("->"), other.split("->")
    if len(ends) != len(others):
        return False
    return all(
        a == b or role_of(a) == b or role_of(b) == a for a, b in zip(ends, others, strict=True)
    )


def shrink(
    faults: Sequence[PlannedFault], fails: Callable[[Sequence[PlannedFault]], bool]
) -> Sequence[PlannedFault]:
    """The fewest of `faults` that still fail: first none of them, then each alone, then fewer.

    `fails` tries some of them, each time anew; where it fails by chance, more are left than needed.
    """
    if not faults or fails(()):
        return ()
    for size in range(1, len(faults)):
        for start in range(len(faults) - size + 1):
            some = faults[start : start + size]
            if fails(some):
                return some
    return faults


def as_tables(faults: Sequence[PlannedFault]) -> str:
    """The faults as a scenario's file has them."""
    return "\n".join(_table(fault) for fault in faults)


def _table(fault: PlannedFault) -> str:
    given = fault.model_dump(by_alias=True, exclude_unset=True)
    lines = [f"{key} = {value!r}".replace("'", '"') for key, value in given.items()]
    return "\n".join(["[[fault]]", *lines, ""])


# What they come to -------------------------------------------------------------------------------

SOLD_BEHIND = "sold_while_behind"
"""A rule of chaos alone: a ledger that has forgotten something sells nothing until its rebuild."""


class Fate(StrEnum):
    """What became of a trial."""

    HELD = "held"
    BROKEN = "broken"  # safety: a rule of the sale
    STUCK = "stuck"  # liveness: it did not sell again, or was not drained
    UNJUDGED = "not judged"


_CODES = {
    Fate.HELD: ExitCode.PASS,
    Fate.BROKEN: ExitCode.VIOLATION,
    Fate.STUCK: ExitCode.VIOLATION,
    Fate.UNJUDGED: ExitCode.NOTHING_JUDGED,
}


@dataclass(frozen=True)
class Trial:
    """One seed: a storm with its faults, healed, drained and verified.

    `broken` are the rules that were breached, `expected` those of them whose breach is right for
    these faults. `lost` are acknowledged orders without a row, `gone` those of them that a ledger
    had forgotten before a worker could write them. `recovered_s` runs from the healing to the first
    order of a claim that was sent after it; None where none came.
    """

    seed: int
    faults: Sequence[str]
    run: str
    broken: Sequence[str] = ()
    expected: Sequence[str] = ()
    acknowledged: int = 0
    lost: int = 0
    gone: int = 0
    doubled: int = 0
    recovered_s: float | None = None
    sent_after: int = 0
    drained: bool = False
    why: str = ""
    within_s: float = field(default=10.0, repr=False)

    @property
    def fate(self) -> Fate:
        """Safety first: what is broken is no less so where something is stuck, too."""
        if set(self.broken) - set(self.expected):
            return Fate.BROKEN
        if self.why or not self.acknowledged:
            return Fate.UNJUDGED
        if not self.drained:
            return Fate.STUCK
        if not self.sent_after:
            return Fate.UNJUDGED
        if self.recovered_s is None or self.recovered_s > self.within_s:
            return Fate.STUCK
        return Fate.HELD

    def to_json(self) -> dict[str, Any]:
        """As it stands in chaos.json."""
        return {**asdict(self), "fate": str(self.fate)}


def exit_code_of(trials: Iterable[Trial]) -> ExitCode:
    """What chaos ends with."""
    return worst(ExitCode.PASS, *(_CODES[trial.fate] for trial in trials))


_HEAD = ("fault", "trials", "held", "orders", "lost", "gone", "twice", "again s", "breached")
"""Narrow enough for a terminal of 80 columns: `orders` were acknowledged, `again s` are the median
and the most seconds until the sale sold again."""


def table(trials: Sequence[Trial]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """The head and the rows: one for each fault, over all trials that it was in, and their sum."""
    faults = sorted({name for trial in trials for name in trial.faults})
    rows = [_row(name, [it for it in trials if name in it.faults]) for name in faults]
    return _HEAD, [*rows, _row("all", trials)]


def _row(name: str, trials: Sequence[Trial]) -> Sequence[str]:
    recovered = [it.recovered_s for it in trials if it.recovered_s is not None]
    times = f"{median(recovered):.1f} ≤ {max(recovered):.1f}" if recovered else "–"
    return (
        name,
        f"{len(trials):,}",
        f"{sum(it.fate is Fate.HELD for it in trials):,}",
        f"{sum(it.acknowledged for it in trials):,}",
        f"{sum(it.lost for it in trials):,}",
        f"{sum(it.gone for it in trials):,}",
        f"{sum(it.doubled for it in trials):,}",
        times,
        ", ".join(_breached(trials)) or "none",
    )


def _breached(trials: Sequence[Trial]) -> Iterator[str]:
    """The rules that were breached, how often, and those that were to be."""
    for rule in dict.fromkeys(rule for trial in trials for rule in trial.broken):
        those = [trial for trial in trials if rule in trial.broken]
        right = sum(rule in trial.expected for trial in those)
        told = f"{rule} ×{len(those)}"
        yield f"{told} (as expected)" if right == len(those) else told


def markdown(title: str, trials: Sequence[Trial], lines: Sequence[str] = ()) -> str:
    """The table as a step's summary shows it, and what failed."""
    head, rows = table(trials)
    told = [f"## {title}", "", _bar(head), _bar(["---"] * len(head)), *map(_bar, rows), ""]
    return "\n".join([*told, *(f"- {cell(line)}" for line in lines), ""])


def _bar(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(cell, cells))} |"
