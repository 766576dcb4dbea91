"""What the sample workflow tells its service containers, told to a Redis as it comes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as NotThere
from rig.child import free_port
from rig.until import until
from rig.workflow import load, of_container

from flashsale.doctor.facts import ask_redis
from flashsale.doctor.findings import Grade, judge_redis
from flashsale.stack.binaries import REDIS, find
from flashsale.stack.redis import RedisRole


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A Redis without any configuration, as a service container starts it."""
    binary = find(REDIS)
    with free_port() as number, Redis("127.0.0.1", number) as client:
        words = [binary.path, "--port", str(number), "--dir", tmp_path, "--bind", "127.0.0.1"]
        server = subprocess.Popen(words, env=binary.environment(), stdout=subprocess.DEVNULL)
        try:
            until(lambda: answers(client))
            yield number
        finally:
            server.kill()
            server.wait()


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except NotThere:
        return False


@pytest.mark.parametrize("role", list(RedisRole))
def test_a_redis_that_was_told_keeps_its_roles_promises(port: int, role: RedisRole) -> None:
    url = f"redis://127.0.0.1:{port}/0"
    assert [f for f in judge_redis(role, ask_redis(role, url)) if f.grade is not Grade.OK]
    binary = find(REDIS)
    for words in of_container(load(), role.upper(), "redis-cli"):
        command = [binary.path.with_name("redis-cli"), "-p", str(port), *words]
        done = subprocess.run(
            command, env=binary.environment(), capture_output=True, text=True, check=True
        )
        assert done.stdout == "OK\n"
    findings = judge_redis(role, ask_redis(role, url))
    assert [finding for finding in findings if finding.grade is not Grade.OK] == []
