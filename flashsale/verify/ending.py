"""How far both stores had come when a run ended, so that later runs do not disturb the judgement.

The storm command has it written after the last answer and the last question, by the stores' own
clocks. What was sold later is taken out of sight by verify/hindsight.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from operator import index
from pathlib import Path
from typing import Any

import orjson

from flashsale.errors import NothingJudgedError
from flashsale.run.folder import ENDING_FILE
from flashsale.verify.baseline import whole_or_none
from flashsale.verify.connection import connect
from flashsale.verify.database import Shelf, frozen_view, read_shelves
from flashsale.verify.ledger import Terms, read_terms
from flashsale.verify.observation import Clocks, Position, read_clocks
from flashsale.verify.queue import Span, read_queue
from flashsale.verify.stream import entry_id

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class SaleAtEnd:
    """What was on sale at the end of the run, so that a later restock or re-opening is known."""

    shelf: Shelf | None
    terms: Terms


@dataclass(frozen=True, slots=True)
class Ending:
    """Both stores after the run. `backlog` orders were still no rows.

    `claim_ms` is how long a claim without an answer may still have sold.
    """

    clocks: Clocks
    claim_ms: int
    position: Position = field(default_factory=Position)
    trimmed: int = 0
    backlog: int = 0
    sales: Mapping[int, SaleAtEnd] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The content of ending.json."""
        document = {
            "schema": SCHEMA,
            "taken_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "clocks": asdict(self.clocks),
            "claim_ms": self.claim_ms,
            "stream": {
                "last_entry": self.position.entry,
                "trimmed": self.trimmed,
                "backlog": self.backlog,
            },
            "dead_letters": {"last_entry": self.position.dead},
            "vouchers": {str(voucher): asdict(sale) for voucher, sale in self.sales.items()},
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def take(ledger_url: str, mysql_url: str, vouchers: Sequence[int], claim_ms: int) -> Ending:
    """The end of a run on `vouchers`, read now: after the last answer that counts.

    Costs the same however many orders there are. Raises UnreachableError where a store does not
    answer.
    """
    with connect(ledger_url, mysql_url) as stores:
        queue = read_queue(stores.ledger, frozenset(vouchers), Span())
        with frozen_view(stores.database):
            shelves = read_shelves(stores.database, vouchers)
            clocks = read_clocks(stores)
        return Ending(
            clocks=clocks,
            claim_ms=claim_ms,
            position=Position(queue.last_entry, queue.dead_last),
            trimmed=queue.trimmed,
            backlog=queue.backlog.total,
            sales={
                voucher: SaleAtEnd(shelves.get(voucher), read_terms(stores.ledger, voucher))
                for voucher in vouchers
            },
        )


def read_ending(run_dir: Path) -> Ending | None:
    """The end of the run in `run_dir`, None where the storm did not live to take one.

    Raises NothingJudgedError for a file that is not one.
    """
    path = run_dir / ENDING_FILE
    try:
        return from_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NothingJudgedError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NothingJudgedError(
            f"{path} is damaged: not the end of a run, schema {SCHEMA}; without the file, "
            "orders of later runs count as this run's"
        ) from error


def ended_last(run_dirs: Sequence[Path]) -> Path | None:
    """The folder of the run that ended last of all; None where one has no end on record.

    What several machines fired as one run ended when the last of them did.
    """
    ended = [(ending.clocks.redis_ms, run) for run in run_dirs if (ending := read_ending(run))]
    return max(ended)[1] if len(ended) == len(run_dirs) else None


def from_json(text: bytes) -> Ending:
    """What to_json wrote. Raises ValueError, KeyError or TypeError for anything else."""
    document = orjson.loads(text)
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']!r}")
    stream, dead = document["stream"], document["dead_letters"]
    clocks = Clocks(**document["clocks"])
    return Ending(
        clocks=replace(clocks, redis_ms=index(clocks.redis_ms), mysql_ms=index(clocks.mysql_ms)),
        claim_ms=index(document["claim_ms"]),
        position=Position(entry_id(stream["last_entry"]), entry_id(dead["last_entry"])),
        trimmed=index(stream["trimmed"]),
        backlog=index(stream["backlog"]),
        sales={int(v): _sale_from_json(sale) for v, sale in document["vouchers"].items()},
    )


def _sale_from_json(sale: Mapping[str, Any]) -> SaleAtEnd:
    shelf, terms = sale["shelf"], sale["terms"]
    return SaleAtEnd(
        Shelf(**{name: index(value) for name, value in shelf.items()}) if shelf else None,
        Terms(**{name: whole_or_none(value) for name, value in terms.items()}),
    )
