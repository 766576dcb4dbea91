"""Nodes that are to become one cluster."""

from typing import Any

import pytest

from flashsale.stack.cluster import _knows

ONE, OTHER, MADE_UP = "a" * 40, "b" * 40, "c" * 40
_AT = "127.0.0.1:7001@17001"


class Node:
    """One that answers CLUSTER NODES."""

    def __init__(self, *lines: str) -> None:
        self._lines = lines

    def execute_command(self, *words: object) -> bytes:
        assert words == ("CLUSTER", "NODES")
        return "".join(f"{line}\n" for line in self._lines).encode()


@pytest.mark.parametrize(
    ("other", "knows"),
    [
        (f"{OTHER} {_AT} master - 0 1 2 connected", True),
        (f"{MADE_UP} {_AT} handshake - 0 0 0 connected", False),
    ],
)
def test_a_node_in_its_handshake_is_not_known_yet(other: str, knows: bool) -> None:
    node: Any = Node(f"{ONE} {_AT} myself,master - 0 0 1 connected", other)
    assert _knows(node, {ONE, OTHER}) is knows


def test_a_node_that_knows_but_itself_is_not_done() -> None:
    node: Any = Node(f"{ONE} {_AT} myself,master - 0 0 1 connected")
    assert not _knows(node, {ONE, OTHER})
