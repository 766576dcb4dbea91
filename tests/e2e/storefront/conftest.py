"""One whole stack for the storefront's tests, seeded and warmed by the commands."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from rig.command_line import run_flashsale

from flashsale.seeding.sessions import read_seeded_tokens
from flashsale.stack.state import StackState, start_detached, stop_stack

OPERATOR = "the operator of the tests"
SETTINGS = {
    "FLASHSALE_STACK_START_TIMEOUT_S": "110",
    "FLASHSALE_STACK_PORT": "0",
    "FLASHSALE_STACK_REPLICAS": "2",
    "FLASHSALE_STACK_REPLICA_PORT": "0",
    "FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "16",
    "FLASHSALE_STACK_MARIADB_BUFFER_POOL_MB": "32",
    "FLASHSALE_OPERATOR_TOKEN": OPERATOR,
    "FLASHSALE_LOGIN_LOG_CODES": "1",
    "FLASHSALE_LOGIN_ADDRESS_CODES_MAX": "12",
    "FLASHSALE_CATALOG_LIST_TTL_S": "1",
    "FLASHSALE_CLAIM_TIMEOUT_MS": "500",
}


@dataclass
class Front:
    """The stack as its clients see it, and the tokens of its seeded users."""

    state: StackState
    state_dir: Path
    tokens: dict[int, str]
    http: httpx.Client

    def ask(
        self, method: str, path: str, token: str | int | None = None, **more: Any
    ) -> httpx.Response:
        """One request through nginx; a number is the user whose token is sent."""
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["authorization"] = self.tokens[token] if isinstance(token, int) else token
        reply = self.http.request(method, path, headers=headers, **more)
        told = reply.text.lower()
        for word in ("traceback", "seckill:", "cache:", "login:", "select ", "tb_", "redis"):
            assert word not in told, "an answer tells nothing of what is behind it"
        return reply

    def data(self, method: str, path: str, token: str | int | None = None, **more: Any) -> Any:
        """What a request that succeeds brings."""
        reply = self.ask(method, path, token, **more)
        assert reply.status_code == 200, reply.text
        envelope = reply.json()
        assert envelope["success"] is True, envelope
        return envelope.get("data")

    def code(self, phone: str) -> str:
        """The last code that was sent to `phone`, from the development log."""
        pattern = re.compile(rf'"phone": ?"{phone}", ?"code": ?"(\d{{6}})"')
        found: list[tuple[str, str]] = []
        for log in self.state_dir.glob("logs/r*.log"):
            for line in log.read_text().splitlines():
                match = pattern.search(line)
                if match:
                    found.append((line.partition('"timestamp"')[2], match[1]))
        return max(found)[1]


@pytest.fixture(scope="session")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A stack that sells, with 60 users, 14 shops of 10 types, 4 blogs and a sale."""
    state_dir = tmp_path_factory.mktemp("storefront")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        state = start_detached(state_dir, tied=True)
    try:
        for command in (("seed", "--users", "60"), ("warm",)):
            _run(*command, "--state-dir", str(state_dir))
        tokens = dict(read_seeded_tokens(state_dir / "tokens.csv"))
        with httpx.Client(base_url=state.base_url, timeout=20) as http:
            yield Front(state, state_dir, tokens, http)
    finally:
        stop_stack(state_dir)


def _run(*arguments: str) -> None:
    done = run_flashsale(Path.cwd(), *arguments, **SETTINGS)
    assert done.returncode == 0, done.stderr
