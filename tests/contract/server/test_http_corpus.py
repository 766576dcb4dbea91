"""Hundreds of requests, well-formed and not, to the replica's server and to two others.

The application is the same behind all three. What the others make of a request where ours differs
stands in a table here; whatever is not in it, they answer alike.
"""

import asyncio
import json
from collections import defaultdict

import pytest
from rig.http_client import Client, outcomes_of
from rig.http_corpus import Case, corpus, request
from rig.http_servers import SERVERS, http_server

CASES = corpus()

DIFFERENCES: dict[str, dict[str, set[str]]] = {
    "granian": {
        # hyper leaves methods, hosts and targets to the application, and takes a bare LF.
        "methods unknown": {"405 kept"},
        "hosts refused": {"200 kept"},
        "line ends": {"200 kept"},
        "request lines with more spaces": {"400 closed"},
        "targets refused": {"404 kept", "200 kept", "405 kept"},
        # Two lengths that are equal are one; other codings before `chunked` are ignored, and a
        # length beside a coding is dropped before the application sees it.
        "lengths refused": {"200 kept"},
        "codings refused": {"200 kept"},
        "length beside coding": {"200 closed"},
        "chunks refused": {"200 kept"},
        # Bounds are the application's, which then keeps the connection; bodies have no time limit.
        "bodies that nobody reads": {"200 closed"},
        "bodies too large": {"413 kept", "413 closed", "400 closed", "reset", "closed"},
        "heads too large": {"431 kept"},
        "targets too long": {"404 kept", "431 kept", "431 closed", "closed", "reset"},
        "heads that stop": {"closed"},
        "bodies that stop": {"silent"},
        "connection that closes": {"200 kept"},
        "half-closed": {"closed"},  # without an answer
        "pipelines that break": {"200 closed"},
        "expect": {"100 200 kept"},  # asks for a body that is there already
        "expect something else": {"200 kept"},
        "noise": {"closed"},
    },
    "uvicorn": {
        # The parser is the one that ours has, without what ours asks beyond it.
        "hosts refused": {"200 kept"},
        "versions": {"200 closed"},
        "request lines": {"200 closed"},
        "targets not found": {"400 closed"},
        "targets refused": {"404 kept", "200 kept", "405 kept"},
        "lengths": {"400 kept"},
        "codings refused": {"200 kept", "200 closed"},
        # No bounds, no time limits; a connection waits for the body that it has refused.
        "lengths too large": {"413 silent"},
        "bodies too large": {"413 kept", "200 kept", "431 kept"},
        "heads too large": {"431 kept", "400 closed", "200 kept"},
        "targets too long": {"404 kept", "431 kept", "400 closed", "silent"},
        "heads that stop": {"silent"},
        "bodies that stop": {"silent"},
        "connection that closes": {"200 kept"},
        "half-closed": {"closed"},
        "pipelines that break": {"400 closed"},  # the request before is not answered
        "expect": {"100 200 kept", "200 then 400", "413 silent"},
        "expect something else": {"200 kept"},
    },
}


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len(CASES) >= 300
    assert len({case.id for case in CASES}) == len(CASES)


def test_our_server() -> None:
    """What was expected, byte for byte in each case, no 5xx, and it lives on."""
    with http_server("ours") as port:
        outcomes = asyncio.run(outcomes_of(port, CASES))
        assert asyncio.run(_alive(port))
    wrong = {
        case.id: f"{outcome}, expected {case.outcome}"
        for case, outcome in zip(CASES, outcomes, strict=True)
        if outcome != case.outcome
    }
    assert wrong == {}


_EITHER_WAY = {"bodies that nobody reads", "half-closed"}
"""Where the other servers' answer depends on which of two things they hear of first."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SERVERS if name != "ours"])
def test_the_application_behind_another_server(name: str) -> None:
    """The application is plain ASGI 3; the servers differ as the table says, and nowhere else."""
    with http_server(name) as port:
        outcomes = asyncio.run(outcomes_of(port, CASES))
        assert asyncio.run(_alive(port))
    unlisted = defaultdict(list)
    for case, outcome in zip(CASES, outcomes, strict=True):
        if outcome != case.outcome and outcome not in DIFFERENCES[name].get(case.family, ()):
            unlisted[case.family, outcome].append(case.name)
    assert dict(unlisted) == {}
    differing = {
        case.family
        for case, outcome in zip(CASES, outcomes, strict=True)
        if outcome != case.outcome
    }
    assert set(DIFFERENCES[name]) - differing <= _EITHER_WAY, "no longer different"


async def _alive(port: int) -> bool:
    client = await Client.at(port)
    await client.say(request())
    answer = await client.hear()
    client.leave()
    return answer.status == 200


def test_refusals_are_in_the_envelope() -> None:
    """A refusal is told as the application tells its own, and names no server."""
    statuses = {case.outcome for case in CASES if case.outcome.endswith(" closed")}
    told = [
        next(case for case in CASES if case.outcome == outcome and not case.ends)
        for outcome in sorted(statuses)
        if outcome.startswith("4")
    ]
    assert {case.outcome[:3] for case in told} == {"400", "408", "413", "414", "417", "431"}
    with http_server("ours") as port:
        for case in told:
            head, body = asyncio.run(_refusal(port, case))
            assert body["success"] is False
            assert body["errorMsg"]
            assert head["connection"] == "close"
            assert head["content-type"] == "application/json"
            assert "server" not in head


async def _refusal(port: int, case: Case) -> tuple[dict[str, str], dict[str, object]]:
    client = await Client.at(port)
    await client.say(*case.parts)
    answer = await client.hear()
    assert await client.ended() == b""
    client.leave()
    return answer.headers, json.loads(answer.body)
