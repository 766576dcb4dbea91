"""The things that users ask for: vouchers in turn, shops as they are drawn."""

from random import Random

from flashsale.model import ID_MAX
from flashsale.storm.workload.plan import UNKNOWN_FROM
from flashsale.storm.workload.scenario import Browse, Scenario
from flashsale.storm.workload.step import Step


class Things:
    """What users ask for: vouchers in turn, user by user; shops as they are drawn."""

    def __init__(self, scenario: Scenario, random: Random) -> None:
        self._vouchers = scenario.sale.voucher_ids if scenario.sale else range(0)
        self._browse, self._random = scenario.browse, random

    def of(self, step: Step, number: int) -> int:
        """What the `number`th user asks for in this step."""
        match step:
            case Step.BUY:
                return self._vouchers[number % len(self._vouchers)]
            case Step.BROWSE:
                assert self._browse is not None
                return _drawn(self._browse, self._random)
            case _:
                return 0


def _drawn(browse: Browse, random: Random) -> int:
    if random.random() < browse.unknown_share:
        return random.randrange(UNKNOWN_FROM, ID_MAX)
    return random.randrange(browse.first_shop, browse.first_shop + browse.shops)
