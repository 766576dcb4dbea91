"""Plans of scenarios that say nothing but what is sold or read, and the load."""

from collections.abc import Sequence

from flashsale.scenario.scenario import Browse, Load, Sale, Scenario
from flashsale.storm.plan.plan import Plan
from flashsale.storm.plan.planning import plan_of


def plan_stampede(load: Load, sale: Sale, user_ids: Sequence[int]) -> Plan:
    """The plan of a scenario that sells."""
    return plan_of(Scenario(schema=1, name="s", load=load, sale=sale), user_ids)


def plan_browse(load: Load, browse: Browse) -> Plan:
    """The plan of a scenario that reads."""
    return plan_of(Scenario(schema=1, name="s", load=load, browse=browse), ())
