"""How many claims of one user a process takes: by session at first, by user where it matters."""

import pytest

from flashsale.accounts import sessions
from flashsale.accounts.sessions import ClaimBudget
from flashsale.errors import Unavailable

pytestmark = pytest.mark.anyio


class Desk:
    """A budget, the users behind its sessions (the token's first letter), and a clock."""

    def __init__(self, claims_max: int, *, away: bool = False) -> None:
        self.now_s, self.asked, self.away = 100.0, 0, away
        self.budget = ClaimBudget(
            self._user_of, claims_max=claims_max, window_s=10, now_s=lambda: self.now_s
        )

    async def _user_of(self, token: str) -> int | None:
        self.asked += 1
        if self.away:
            raise Unavailable("sessions cannot be read")
        return None if token.startswith("nobody") else ord(token[0])

    async def claim(self, token: str) -> int:
        session = f"login:token:{token}"
        return await self.budget.wait_s(session, token) if self.budget.add(session) else 0


async def test_so_many_and_no_more_until_the_window_ends() -> None:
    desk = Desk(1_000)
    assert [await desk.claim("a") for _ in range(1_000)] == [0] * 1_000
    desk.now_s += 7.5
    assert await desk.claim("a") == 3, "whole seconds, rounded up"
    assert await desk.claim("b") == 0
    desk.now_s += 2.5
    assert await desk.claim("a") == 0
    assert desk.asked == 1, "one look-up a session that claims more than a few times"


async def test_sessions_of_one_user_share_what_they_may() -> None:
    desk = Desk(200)
    waits = [await desk.claim(token) for _ in range(100) for token in ("a1", "a2", "a3")]
    assert sum(wait == 0 for wait in waits) == 200
    assert [await desk.claim("b1") for _ in range(20)] == [0] * 20


async def test_a_small_budget_is_exact_from_the_first_claim() -> None:
    desk = Desk(3)
    waits = [await desk.claim(f"a{number}") for number in range(8)]
    assert [wait == 0 for wait in waits] == [True] * 3 + [False] * 5


async def test_where_nobody_can_be_known_a_session_counts_by_itself() -> None:
    for desk in (Desk(40, away=True), Desk(40)):
        token = "a" if desk.away else "nobody"
        waits = [await desk.claim(token) for _ in range(60)]
        assert [wait == 0 for wait in waits] == [True] * 40 + [False] * 20
        assert desk.asked == 1


async def test_what_it_keeps_in_mind_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_COUNTED_MAX", 50)
    desk = Desk(1_000)
    for number in range(500):
        for _ in range(9):
            await desk.claim(f"x{number}")
        assert len(desk.budget._counts) <= 50
