"""The plan as lines of attempts.jsonl, and back."""

from array import array
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import orjson

from flashsale.storm.workload.plan import ALWAYS, FIRST, Plan
from flashsale.storm.workload.step import STEP_OF, Step

SCHEMA = 1
"""The version of attempts.jsonl."""

_HEADS = {
    Step.BUY: '{{"kind":"plan","i":{i},"user":{user},"voucher":{thing},',
    Step.BROWSE: '{{"kind":"plan","i":{i},"ask":"browse",{who}"shop":{thing},',
    Step.SIGN: '{{"kind":"plan","i":{i},"ask":"sign","user":{user},',
}


def plan_lines(plan: Plan) -> Iterator[str]:
    """One line an attempt, in the plan's order.

    A line without "ask" is a claim. Without "conn" any connection will do. "at_us" counts from
    the barrier; in its place stand "after" and "think_us" where it waits for another's answer.
    "given" names the claim that has to come to nothing for this attempt to be made. In a part of a
    plan "n" is the attempt's number in the whole.
    """
    columns = zip(
        plan.asks,
        plan.users or repeat(0, len(plan)),
        plan.things,
        plan.connections or repeat(None, len(plan)),
        plan.at_us,
        plan.after or repeat(FIRST, len(plan)),
        plan.given or repeat(ALWAYS, len(plan)),
        plan.numbers or repeat(None, len(plan)),
        strict=True,
    )
    heads = [_HEADS[step] for step in Step]
    for i, (ask, user, thing, connection, at_us, after, given, number) in enumerate(columns):
        head = heads[ask].format(i=i, user=user, thing=thing, who=f'"user":{user},' * bool(user))
        where = "" if connection is None else f'"conn":{connection},'
        when = f'"at_us":{at_us}' if after == FIRST else f'"after":{after},"think_us":{at_us}'
        needs = "" if given == ALWAYS else f',"given":{given}'
        name = "" if number is None else f'"n":{number},'
        yield f"{head}{name}{where}{when}{needs}}}\n"


def read_plan(path: Path) -> Plan:
    """The plan in a file of attempts, whole before the barrier opened.

    Raises OSError, and ValueError for a file that is not one of attempts, or of another version, or
    whose plan is cut short.
    """
    with path.open("rb") as lines:
        header = orjson.loads(next(lines, b"null"))
        if not isinstance(header, dict) or header.get("kind") != "header":
            raise ValueError(f"{path} does not begin with a header")
        if header.get("schema") != SCHEMA:
            raise ValueError(f"{path}: found schema {header.get('schema')!r}, expected {SCHEMA}")
        rows = list(_rows(lines))
    if len(rows) != header["planned"]:
        raise ValueError(f"{path} has {len(rows):,} of {header['planned']:,} planned attempts")
    return _plan(rows, header)


_ANY = -1


def _rows(lines: Iterator[bytes]) -> Iterator[tuple[int, ...]]:
    """Step, user, thing, connection, instant or pause, what it waits for, what it is given, and
    its number in the whole of which the plan is a part; line by line."""
    for number, line in enumerate(lines):
        if not line.startswith(b'{"kind":"plan"'):
            return
        plan: dict[str, Any] = orjson.loads(line)
        if plan["i"] != number:
            raise ValueError(f"attempt {plan['i']} stands where {number} was expected")
        step = STEP_OF[plan.get("ask", "browse" if "shop" in plan else "buy")]
        thing = plan.get("voucher", plan.get("shop", 0))
        after = plan.get("after", FIRST)
        when = plan["at_us"] if after == FIRST else plan["think_us"]
        connection, given = plan.get("conn", _ANY), plan.get("given", ALWAYS)
        number_there = plan.get("n", _ANY)
        yield step, plan.get("user", 0), thing, connection, when, after, given, number_there


def _plan(rows: list[tuple[int, ...]], header: dict[str, Any]) -> Plan:
    columns = zip(*rows, strict=True) if rows else repeat((), 8)
    asks, users, things, connections, at_us, after, given, numbers = columns
    is_open = set(connections) <= {_ANY}
    return Plan(
        asks=array("b", asks),
        users=array("q", users if any(users) else ()),
        things=array("q", things),
        connections=array("q", () if is_open else connections),
        at_us=array("q", at_us),
        connection_count=header.get("connections", max(connections, default=0) + 1),
        after=array("q", after if any(i != FIRST for i in after) else ()),
        numbers=array("q", () if _ANY in numbers else numbers),
        given=array("q", given if any(i != ALWAYS for i in given) else ()),
        retry_on=tuple(header.get("retry_on", ())),
        cold=header.get("cold", False),
        clicks=header.get("clicks", 1),
    )
