"""One request of each kind to somebody's shop, and a look at its books: what was understood, before
many come. The engine is the storm's, so what is sent here is what a storm would send.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from flashsale.books import ShopBooks
from flashsale.campaign.storming import StormRequest, greeted, tokens_of, users_of
from flashsale.campaign.teller import SILENT
from flashsale.errors import FlashsaleError
from flashsale.model import Ending, Outcome
from flashsale.run.attempts import Attempts
from flashsale.scenario.answer import Answer
from flashsale.scenario.load import Step
from flashsale.scenario.scenario import Scenario, parse_document
from flashsale.scenario.table import shop_document, texts_of
from flashsale.scenario.target import Tls
from flashsale.scenario.tokens import ID_COLUMN
from flashsale.storm.attack.attack import Mission, Records
from flashsale.storm.attack.engine import Engine
from flashsale.storm.attack.selfwatch import SelfWatch
from flashsale.storm.plan.planning import plan_of
from flashsale.verify.shop_baseline import Claimed, look_at

_ORDER = (Step.LOGIN, Step.BROWSE, Step.SIGN, Step.CART, Step.BUY, Step.PAY, Step.CANCEL)
_UNREAD = frozenset(
    {"rule", "order_id", "message", "no_message", "body", "outcome", "malformed", "truncated"}
)


@dataclass(frozen=True)
class Tried:
    """One step that was taken: what was asked, and what came of it; None where it was not sent."""

    step: str
    asked: str
    answer: Answer | None
    user: str = ""

    @property
    def claimed(self) -> Claimed | None:
        """Who was sold what; None where nothing was."""
        if self.answer is None or self.answer.outcome is not Outcome.SOLD:
            return None
        return self.user, self.answer.order

    @property
    def is_understood(self) -> bool:
        """Whether the answer was one that the file knows."""
        answer = self.answer
        if answer is None:
            return True
        return answer.error not in _UNREAD and answer.outcome is not Outcome.INDETERMINATE

    def __str__(self) -> str:
        if self.answer is None:
            return f"{self.step}: not asked, since nothing was sold"
        status = "no answer" if self.answer.status is None else f"{self.answer.status}"
        order = f", order {self.answer.order}" if self.answer.order else ""
        said = f": {self.answer.said}" if self.answer.said else ""
        wrong = f" ({self.answer.error}{said})" if self.answer.error else ""
        return f"{self.step}: {self.asked} → {status}: {self.answer.outcome}{order}{wrong}"


class _Nobody:
    """Writes nothing down."""

    def __init__(self) -> None:
        self.outcomes: Counter[Ending] = Counter()

    def write_barrier(self, unix_us: int) -> None:
        """Nothing."""

    def write_results(self, attempts: Attempts) -> None:
        """Nothing."""


def scenario_to_try(target: str, voucher: int) -> Scenario:
    """One user who takes each step that the shop's file describes, once. Raises UsageError."""
    document: dict[str, Any] = {
        "schema": 1,
        "name": "target-check",
        "question": "What is understood of this shop?",
        "sale": {"units": 1, "first_voucher": voucher},
        "load": {"model": "closed", "users": 1, "connections": 1},
        "timeouts": {"barrier_ms": 5_000, "drain_ms": 5_000, "run_ms": 60_000},
        **shop_document(target),
    }
    tables = document.get("target", {})
    steps = [step.endpoint for step in _ORDER if step.endpoint in tables]
    if steps:
        document["load"] = {**document["load"], "steps": steps}
    if "browse" in steps:
        document["browse"] = {"shops": 1, "first_shop": voucher}
    if steps and "buy" not in steps:
        del document["sale"]
    return parse_document(document, target, texts_of(target))


def try_steps(
    scenario: Scenario, base_url: str, users: Path, tls: Tls | None = None
) -> Iterator[Tried]:
    """Take each step as the first user. Raises UsageError, and UnreachableError where nothing
    answers."""
    request = StormRequest(scenario, base_url, users, tls=tls)
    columns = users_of(request)
    tokens = tokens_of(request, columns)
    target, _ = greeted(request, tokens, columns, SILENT)
    plan = plan_of(scenario, list(tokens))
    mission = Mission(scenario, target, plan, tokens, columns, "target-check")
    attempts = Attempts(len(plan))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        engine = Engine(mission, Records(attempts, _Nobody(), SelfWatch()), lambda _: None)
        runner.run(engine.run())
    for i, ask in enumerate(plan.asks):
        asked = engine.request_of(i).partition(b" HTTP/")[0].decode("latin-1")
        user = plan.users[i] if plan.users else 0
        named = columns.get(user, {}).get(ID_COLUMN, str(user))
        yield Tried(Step(ask).endpoint, asked, attempts.answers[i], named)


def try_books(
    shop: ShopBooks, voucher: int, tried: Sequence[Tried] = ()
) -> tuple[list[str], FlashsaleError | None]:
    """What the books say of one voucher, and of what was sold, a line each; and what keeps them
    from being read, if anything does."""
    lines: list[str] = []
    claimed = [each.claimed for each in tried if each.claimed]
    is_cancelled = any(each.step == Step.CANCEL.endpoint and each.answer for each in tried)
    try:
        lines.extend(look_at(shop, voucher, claimed, cancelled=is_cancelled))
    except FlashsaleError as error:
        return lines, error
    return lines, None
