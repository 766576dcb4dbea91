"""Whether the processes of a running stack answer, asked from outside."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from flashsale.stack import probe
from flashsale.stack.state import ChildState, StackState

_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Health:
    """Each process by name, and whether it answered; well where all did and the stack is ready."""

    answers: Mapping[str, bool]
    well: bool


def check(state: StackState) -> Health:
    """Ask every process at once, each in its own protocol."""
    with ThreadPoolExecutor(max(1, len(state.children))) as asking:
        answers = dict(zip(_names(state), asking.map(_answers, state.children), strict=True))
    return Health(answers, state.ready and all(answers.values()))


def _names(state: StackState) -> list[str]:
    return [child.name for child in state.children]


def _answers(child: ChildState) -> bool:
    question = _QUESTIONS.get(child.kind, _asks_http)
    return child.pid > 0 and child.url is not None and question(child.url)


def _asks_http(url: str) -> bool:
    return probe.http_status(*_address(url), "/healthz", _TIMEOUT_S) == 200


def _asks_any_page(url: str) -> bool:
    return probe.http_status(*_address(url), "/", _TIMEOUT_S) == 200


def _asks_prometheus(url: str) -> bool:
    return probe.http_status(*_address(url), "/-/ready", _TIMEOUT_S) == 200


def _asks_redis(url: str) -> bool:
    return probe.redis_reply(*_address(url), _TIMEOUT_S) == "+PONG"


def _asks_mysql(url: str) -> bool:
    return probe.mysql_answers(url, _TIMEOUT_S)


_QUESTIONS: dict[str, Callable[[str], bool]] = {
    "redis-ledger": _asks_redis,
    "redis-cache": _asks_redis,
    "mariadb": _asks_mysql,
    "prometheus": _asks_prometheus,
    "redis-exporter": _asks_any_page,
    "mysql-exporter": _asks_any_page,
    "nginx-exporter": _asks_any_page,
}


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0
