"""SIGKILL of each process, alone and with a partner, between any two steps: one row an order, and
conservation to the unit. A few of each kind here; all of them in `make nightly`.
"""

from collections.abc import Iterator

import pytest
from rig.kill_pairs import Kill, World, carry_out, opened

from flashsale.failpoints import POINTS

pytestmark = pytest.mark.timeout(120)

ROLES = {  # by what their points begin with
    "worker": ("worker.", "rows."),
    "replica": ("claim.", "settlement.", "permit.", "cancel."),
    "rebuild": ("rebuild.", "permit."),
    "sweeper": ("sweep.",),
    "control": ("sale.",),
}
PARTNERS = {
    "worker": ("nobody", "ledger", "mariadb", "worker", "replica"),
    "replica": ("nobody", "ledger", "mariadb", "worker"),
    "rebuild": ("nobody", "ledger", "mariadb", "worker", "replica"),
    "sweeper": ("nobody", "ledger", "mariadb", "worker"),
    "control": ("nobody", "ledger", "mariadb", "worker"),
}
ALL = [
    Kill(role, point, partner)
    for role, beginnings in ROLES.items()
    for point in POINTS
    if point.startswith(beginnings)
    for partner in PARTNERS[role]
]
SOME = [
    Kill("worker", "rows.inserted", "ledger"),
    Kill("worker", "rows.committed", "mariadb"),
    Kill("worker", "worker.unlocked", "worker"),
    Kill("worker", "rows.positioned", "replica"),
    Kill("replica", "claim.answered", "ledger"),
    Kill("replica", "permit.granting", "worker"),
    Kill("replica", "cancel.committed", "nobody"),
    Kill("rebuild", "rebuild.stock", "ledger"),
    Kill("rebuild", "rebuild.drawn", "mariadb"),
    Kill("sweeper", "sweep.returned", "ledger"),
    Kill("control", "sale.planned", "ledger"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened(tmp_path_factory.mktemp("pairs")) as world:
        yield world


def test_the_whole_of_it_has_every_point_and_every_role() -> None:
    assert {kill.point for kill in ALL} == set(POINTS)
    assert set(SOME) <= set(ALL)
    assert {kill.role for kill in SOME} == set(ROLES)


@pytest.mark.slow
@pytest.mark.parametrize("kill", SOME, ids=str)
def test_a_pair_that_is_killed_between_two_steps_loses_and_doubles_nothing(
    world: World, kill: Kill
) -> None:
    carry_out(world, kill)


@pytest.mark.nightly
@pytest.mark.parametrize("kill", ALL, ids=str)
def test_every_pair_between_any_two_steps(world: World, kill: Kill) -> None:
    carry_out(world, kill)
