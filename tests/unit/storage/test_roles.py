"""Which errors certainly did nothing, and which may have done something."""

import pytest
from redis.exceptions import (
    BusyLoadingError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    WatchError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from flashsale import keys
from flashsale.errors import Indeterminate, Unavailable, UsageError
from flashsale.lua.scripts import REFUSED
from flashsale.settings import ClaimSettings
from flashsale.storage.roles import (
    Confirmation,
    GroupExists,
    NoGroup,
    Rejected,
    async_client,
    call,
    sync_client,
    trouble,
)

CERTAINLY_NOT_DONE: list[RedisError] = [
    NoScriptError("No matching script. Please use EVAL."),
    BusyLoadingError("Redis is loading the dataset in memory"),
    OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
    ReadOnlyError("Can not run script with write flag on readonly replica."),
    ResponseError("MISCONF Redis is configured to save RDB snapshots, but it's failing"),
    ResponseError("BUSY Redis is busy running a script. You can only call SCRIPT KILL"),
    ResponseError("NOREPLICAS Not enough good replicas to write."),
    ResponseError(f"{REFUSED} key 1 is a list, not a string"),
]
MAYBE_DONE: list[RedisError] = [
    ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    ResponseError("ERR value is not an integer or out of range script: ab, on @user_script:70."),
    ResponseError("BUSYGROUP Consumer Group name already exists"),
    ResponseError("a text with OOM, LOADING and REFUSED, but not at its start"),
    RedisConnectionError("Connection closed by server."),
    RedisTimeoutError("Timeout reading from socket"),
    RedisError(),
]


@pytest.mark.parametrize("error", CERTAINLY_NOT_DONE, ids=lambda e: str(e)[:20])
def test_refused_before_execution_is_unavailable(error: RedisError) -> None:
    assert type(trouble(error)) is Unavailable


@pytest.mark.parametrize("error", MAYBE_DONE, ids=lambda e: str(e)[:20])
def test_everything_else_is_indeterminate(error: RedisError) -> None:
    assert type(trouble(error)) is Indeterminate


def test_trouble_says_what_it_was() -> None:
    assert "Timeout reading" in str(trouble(RedisTimeoutError("Timeout reading from socket")))
    assert "RedisError" in str(trouble(RedisError()))


@pytest.mark.parametrize("make", [sync_client, async_client])
@pytest.mark.parametrize("url", ["", "localhost:6379", "http://localhost", "redis://h:port/0"])
def test_a_url_of_something_else_is_the_users_error(make: object, url: str) -> None:
    with pytest.raises(UsageError, match="expected redis://"):
        make(url)  # type: ignore[operator]


@pytest.mark.parametrize("make", [sync_client, async_client])
def test_clients_never_retry(make: object) -> None:
    """A retry could sell twice; RESP3 pools fail after an idle connection was closed."""
    pool = make("redis://127.0.0.1:1/0").connection_pool  # type: ignore[operator]
    connection = pool.make_connection()
    assert connection.retry._retries == 0
    assert int(connection.protocol) == 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ResponseError("NOGROUP No such key 'stream.orders' or consumer group 'g1'"), NoGroup),
        (ResponseError("BUSYGROUP Consumer Group name already exists"), GroupExists),
        (ResponseError("WRONGTYPE Operation against a key"), Rejected),
        (WatchError("Watched variable changed."), Rejected),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), Unavailable),
        (BusyLoadingError("Redis is loading the dataset in memory"), Unavailable),
        (RedisConnectionError("Connection closed by server."), Indeterminate),
        (RedisTimeoutError("Timeout reading from socket"), Indeterminate),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:10]),
)
def test_an_error_of_a_plain_command_says_that_it_was_not_executed(
    error: RedisError, kind: type[Exception]
) -> None:
    def command(word: str, *, count: int) -> None:
        assert (word, count) == ("x", 2)
        raise error

    with pytest.raises(Exception, match=str(error).split()[0]) as raised:
        call(command, "x", count=2)
    assert type(raised.value) is kind
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    ("confirmation", "words", "enough", "too_little"),
    [
        (Confirmation(2, 300), ("WAIT", 2, 300), 2, 1),
        (Confirmation(1, 300, on_disk=True), ("WAITAOF", 1, 1, 300), [1, 1], [1, 0]),
        (Confirmation(1, 300, on_disk=True), ("WAITAOF", 1, 1, 300), [1, 2], [0, 1]),
    ],
)
def test_what_replicas_are_asked_and_what_suffices(
    confirmation: Confirmation, words: tuple[object, ...], enough: object, too_little: object
) -> None:
    mark, asked = confirmation.commands
    assert mark[:2] == ("SET", keys.PROBE)
    assert asked == words
    for marked in ("OK", b"OK", True):
        assert confirmation.holds([marked, enough])
        assert not confirmation.holds([marked, too_little])
    refused = Unavailable("NOREPLICAS Not enough good replicas to write.")
    unknown = Unavailable("unknown command 'WAITAOF'")
    for replies in ([refused, enough], [None, enough], ["OK", unknown], ["OK", None]):
        assert not confirmation.holds(replies)
    assert "within 300 ms" in confirmation.told(["OK", too_little])
    assert "unknown command" in confirmation.told(["OK", unknown])
    assert "NOREPLICAS" in confirmation.told([refused, enough])


def test_nobody_is_asked_unless_told_to() -> None:
    assert Confirmation.wanted(ClaimSettings()) is None
    asked = ClaimSettings(confirm_replicas=2, confirm_timeout_ms=40, confirm_on_disk=True)
    assert Confirmation.wanted(asked) == Confirmation(2, 40, on_disk=True)
    with pytest.raises(UsageError, match="confirm_timeout_ms must be shorter than timeout_ms"):
        ClaimSettings.load(confirm_replicas=1, timeout_ms=400)
    ClaimSettings.load(timeout_ms=400)


def test_a_mark_is_of_the_lane_that_is_waited_for() -> None:
    lane = keys.Lane(1, 3, "one")
    mark, asked = Confirmation(1, 300).on(lane).commands
    assert mark[1] == lane.probe
    assert lane.has(str(mark[1]))
    assert asked == ("WAIT", 1, 300)
    assert Confirmation(1, 300).on(keys.WHOLE) == Confirmation(1, 300)
