"""Who may call a route: without a credential nobody, with trouble nobody is told that."""

import asyncio

import pytest
from pydantic import SecretStr

from flashsale.errors import Unavailable, UsageError
from flashsale.server.caller import Callers
from flashsale.server.request import Request
from flashsale.server.response import Response, ok
from flashsale.settings import OperatorSettings

pytestmark = pytest.mark.anyio

OPERATOR = "an operator's token"


class FakeSessions:
    """Knows the user 7."""

    def __init__(self) -> None:
        self.asked = 0

    async def user_of(self, token: str) -> int | None:
        self.asked += 1
        if token == "trouble":
            raise Unavailable("sessions cannot be read")
        return 7 if token == "seven" else None


class FakeRequest:
    """A token."""

    def __init__(self, token: str) -> None:
        self.token = token


async def whoever(request: Request, segment: str, user_id: int | None = None) -> Response:
    return ok([user_id, segment])


@pytest.fixture
def sessions() -> FakeSessions:
    return FakeSessions()


def callers(sessions: FakeSessions, token: str = OPERATOR) -> Callers:
    return Callers(sessions, OperatorSettings(token=SecretStr(token)))  # type: ignore[arg-type]


def request(token: str) -> Request:
    return FakeRequest(token)  # type: ignore[return-value]


async def test_signed_in(sessions: FakeSessions) -> None:
    handler = callers(sessions).signed_in(whoever)
    assert (await handler(request("seven"), "x")).body == ok([7, "x"]).body


@pytest.mark.parametrize("token", ["", "nobody's", OPERATOR])
async def test_not_signed_in(sessions: FakeSessions, token: str) -> None:
    answer = await callers(sessions).signed_in(whoever)(request(token), "")
    assert (answer.status, answer.body) == (401, b"")


async def test_trouble_is_no_401(sessions: FakeSessions) -> None:
    with pytest.raises(Unavailable):
        await callers(sessions).signed_in(whoever)(request("trouble"), "")


@pytest.mark.parametrize(
    ("token", "user", "asked"),
    [("seven", 7, 1), ("", None, 0), ("no", None, 1), ("trouble", None, 1)],
)
async def test_anybody(sessions: FakeSessions, token: str, user: int | None, asked: int) -> None:
    answer = await callers(sessions).anybody(whoever)(request(token), "x")
    assert answer.body == ok([user, "x"]).body
    assert sessions.asked == asked


async def test_each_request_is_given_its_own_user() -> None:
    class Sessions:
        async def user_of(self, token: str) -> int:
            await asyncio.sleep(0)
            return int(token)

    handler = callers(Sessions()).signed_in(whoever)  # type: ignore[arg-type]
    answers = await asyncio.gather(*(handler(request(str(n)), "x") for n in range(1, 50)))
    assert [answer.body for answer in answers] == [ok([n, "x"]).body for n in range(1, 50)]


async def test_an_operator(sessions: FakeSessions) -> None:
    answer = await callers(sessions).operator(whoever)(request(OPERATOR), "x")
    assert answer.status == 200
    assert sessions.asked == 0


@pytest.mark.parametrize("token", ["", "seven", OPERATOR[:-1], OPERATOR + "x", "tokén"])
async def test_not_an_operator(sessions: FakeSessions, token: str) -> None:
    answer = await callers(sessions).operator(whoever)(request(token), "")
    assert (answer.status, answer.body) == (401, b"")


@pytest.mark.parametrize("token", ["", "seven", OPERATOR])
async def test_without_an_operator_token_nobody_is_one(sessions: FakeSessions, token: str) -> None:
    answer = await callers(sessions, "").operator(whoever)(request(token), "")
    assert answer.status == 401


def test_a_token_that_can_be_guessed_is_refused_unseen(sessions: FakeSessions) -> None:
    with pytest.raises(UsageError, match="FLASHSALE_OPERATOR_TOKEN: expected 16") as refused:
        callers(sessions, "secret")
    assert "secret" not in str(refused.value)
    assert OPERATOR not in repr(callers(sessions))
