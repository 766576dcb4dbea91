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

from flashsale.asking import ask_once
from flashsale.books import ShopBooks
from flashsale.campaign.campaign import SILENT
from flashsale.campaign.storming import StormRequest, greeted, tokens_of, users_of
from flashsale.errors import FlashsaleError
from flashsale.model import Ending, Outcome
from flashsale.run.attempts import Attempts
from flashsale.scenario.answer import Answer
from flashsale.scenario.load import STEP_OF, Step
from flashsale.scenario.scenario import Scenario, parse_document
from flashsale.scenario.shop import StepTable
from flashsale.scenario.table import shop_document, texts_of
from flashsale.scenario.target import Target, Tls
from flashsale.scenario.tokens import ID_COLUMN
from flashsale.storm.attack.attack import Mission, Records, SelfWatch
from flashsale.storm.attack.engine import Engine
from flashsale.storm.plan.planning import plan_of
from flashsale.verify.shop_seen import Claimed, look_at

_ORDER = (Step.LOGIN, Step.BROWSE, Step.SIGN, Step.CART, Step.BUY, Step.PAY, Step.CANCEL)
_HEALTH_TIMEOUT_S = 5.0
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
    table: StepTable | None = None

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
        if answer.outcome is Outcome.REFUSED:  # by its status alone, unless a rule says so
            rules = self.table.outcomes if self.table else ()
            return any(rule.outcome == Outcome.REFUSED for rule in rules)
        return answer.error not in _UNREAD and answer.outcome is not Outcome.INDETERMINATE

    @property
    def cure(self) -> str:
        """What to do about an answer that was not understood."""
        answer, where = self.answer, f"target.{self.step}"
        assert answer is not None
        if self.table is None:
            return f"see to [{where}]" if self.step in STEP_OF else f"see to {where}"
        if answer.error == "order_id":
            return f"no order's id is at {where}.order ({self.table.order!r}); say where it is"
        if answer.status is None:
            polled = (
                f", and that a rule of {where}.poll ends what is 'queued'"
                if self.table.poll
                else ""
            )
            return f"no answer that ends it came; see that the shop answers {self.asked}{polled}"
        if answer.status >= 500:
            return f"the shop failed; see to it, and to what {where} asks"
        return (
            f"see to what {where} asks, or add a rule to {where}.outcomes, such as "
            f'{{ status = {answer.status}, outcome = "…" }}'
        )

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


def mission_to_try(
    scenario: Scenario, base_url: str, users: Path, tls: Tls | None = None
) -> Mission:
    """Each step, to be taken once by the first user. Raises UsageError, and UnreachableError where
    nothing answers."""
    request = StormRequest(scenario, base_url, users, tls=tls)
    columns = users_of(request)
    tokens = tokens_of(request, columns)
    target, _ = greeted(request, tokens, columns, SILENT)
    plan = plan_of(scenario, list(tokens))
    return Mission(scenario, target, plan, tokens, columns, "target-check")


def try_steps(mission: Mission) -> Iterator[Tried]:
    """Take each step, and look at the health route, which says nothing where it is well."""
    plan, columns, shop = mission.plan, mission.columns, mission.scenario.target
    if shop.is_own and shop.health and "health" in shop.model_fields_set:
        yield from _unwell(mission.target, shop.health)
    attempts = Attempts(len(plan))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        engine = Engine(mission, Records(attempts, _Nobody(), SelfWatch()), lambda _: None)
        runner.run(engine.run())
    for i, ask in enumerate(plan.asks):
        asked = engine.request_of(i).partition(b" HTTP/")[0].decode("latin-1")
        user = plan.users[i] if plan.users else 0
        named = columns.get(user, {}).get(ID_COLUMN, str(user))
        table = shop.described.get(Step(ask))
        yield Tried(Step(ask).endpoint, asked, attempts.answers[i], named, table)


def _unwell(target: Target, path: str) -> Iterator[Tried]:
    status = ask_once(
        target.origin + path,
        total_s=_HEALTH_TIMEOUT_S,
        headers={"host": target.authority},
        way=target.way,
    ).status
    if status != 200:
        yield Tried(
            "health", f"GET {path}", Answer(Outcome.REFUSED, status, None, f"http_{status}")
        )


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
