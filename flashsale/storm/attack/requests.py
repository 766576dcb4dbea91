"""The bytes of each attempt of a plan, made before the storm."""

from collections.abc import Mapping

from flashsale.scenario.load import Step
from flashsale.scenario.target import Target
from flashsale.storm.plan.plan import Plan


def requests_of(plan: Plan, target: Target, tokens: Mapping[int, str]) -> list[bytes]:
    """What to send for each attempt. Raises KeyError where a user of the plan has no token."""
    if plan.steps == (Step.BUY,):
        owners = map(tokens.__getitem__, plan.users)
        return target.claims(zip(plan.things, owners, strict=True))
    if not plan.users:
        return target.reads(plan.things)
    columns = zip(plan.asks, plan.users, plan.things, strict=True)
    return [_request(target, ask, tokens[user], thing) for ask, user, thing in columns]


def _request(target: Target, ask: int, token: str, thing: int) -> bytes:
    match ask:
        case Step.BUY:
            return target.claim(thing, token)
        case Step.BROWSE:
            return target.read_by(thing, token)
        case _:
            return target.sign_in(token)
