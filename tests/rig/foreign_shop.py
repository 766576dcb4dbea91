"""Somebody's shop: a file that describes it, a function that is it, and a storm on it judged."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flashsale.campaign.campaign import shop_books
from flashsale.campaign.judging import judge_run
from flashsale.campaign.storming import StormRequest, run_storm
from flashsale.campaign.trying import Tried, mission_to_try, scenario_to_try, try_books, try_steps
from flashsale.errors import FlashsaleError
from flashsale.scenario.scenario import parse_scenario
from flashsale.verify.finding import Judgement
from rig.shop_server import Answer, ShopServer

UNITS = 4
SALE = """\
# Is it sold as it should be?
schema = 1
name = "foreign"
[sale]
units = {units}
quantity = {quantity}
limit = {limit}
[load]
model = "closed"
users = 8
connections = 4
clicks = {clicks}
steps = {steps}
[thresholds]
"error.share" = "<= 100%"
{shop}
"""


@dataclass
class Stock:
    """Units and who has one; `spare` claims are sold past the last unit."""

    spare: int = 0
    of: dict[str, str] = field(default_factory=dict)

    def to(self, user: str, order: str) -> str:
        """The order, or `sold_out`, or `duplicate`."""
        if user in self.of:
            return "duplicate"
        if len(self.of) >= UNITS + self.spare:
            return "sold_out"
        return self.of.setdefault(user, order)


@dataclass
class Shop:
    """What a file describes, and who it describes; `sale` is how it sells, `workers` what it goes
    on with by itself."""

    file: str
    answer: Answer
    steps: tuple[str, ...] = ("buy",)
    users: str = ""
    sale: Mapping[str, int] = field(default_factory=dict)
    workers: list[threading.Thread] = field(default_factory=list)

    def put(self, folder: Path) -> Path:
        """Its users' file, one that is not there where it has none."""
        if self.users:
            (folder / "users.csv").write_text(self.users)
        return folder / "users.csv"

    def judged(self, folder: Path, **stores: Any) -> tuple[Judgement, dict[str, int]]:
        """What the judge finds after a storm, and the storm's outcomes of claims."""
        usual = {"units": 9, "quantity": 1, "limit": 1, "clicks": 1}
        text = SALE.format(**{**usual, **self.sale}, steps=json.dumps(self.steps), shop=self.file)
        scenario = parse_scenario(text, "shop.toml")
        assert scenario.books is not None
        drain_s = stores.pop("drain_s", 5.0)
        with ShopServer(self.answer).open() as server:
            books = shop_books(scenario.books, server.base_url, **stores)
            request = StormRequest(
                scenario=scenario,
                base_url=server.base_url,
                tokens=self.put(folder),
                stores=books,
                out=folder / "run",
                calibrate=False,
            )
            try:
                told = run_storm(request)
                found = judge_run(folder / "run", books, drain_timeout_s=drain_s).judgement
            finally:
                for worker in self.workers:
                    worker.join()
            return found, told.summary.endpoints["buy"].outcomes

    def tried(
        self, folder: Path, **stores: Any
    ) -> tuple[list[Tried], list[str], FlashsaleError | None]:
        """What `target check` understands of it, says of its books, and cannot read."""
        (folder / "shop.toml").write_text(self.file)
        scenario = scenario_to_try(str(folder / "shop.toml"), 1)
        assert scenario.books is not None
        with ShopServer(self.answer).open() as server:
            tried = list(try_steps(mission_to_try(scenario, server.base_url, self.put(folder))))
            books = shop_books(scenario.books, server.base_url, **stores)
            return tried, *try_books(books, 1, tried)


def unproved(found: Judgement) -> list[tuple[str, str]]:
    """The checks that did not pass, and why."""
    return [(check.name, check.detail) for check in found.checks if check.verdict != "pass"]
