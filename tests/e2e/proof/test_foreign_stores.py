"""The main job on stores that nobody here packages: sid's MySQL and Valkey, by URL."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig.foreign_stores import ForeignMySQL, ForeignRedis, by_its_loader, unpacked
from rig.store_commands import main_job

from flashsale.doctor.facts import ask_mysql
from flashsale.doctor.findings import judge_mysql
from flashsale.doctor.policies import Grade
from flashsale.stack.redis import RedisRole

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def sid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sid")
    return unpacked("sid", ["mysql-server-core", "valkey-server"], folder)


@pytest.fixture
def mysql(sid: Path, tmp_path: Path) -> Iterator[ForeignMySQL]:
    """With the lines that doctor wants written, and nothing else that is not its default."""
    server = ForeignMySQL(sid, tmp_path / "mysql")
    with server:
        broken = [f for f in judge_mysql(ask_mysql(server.url)) if f.grade is not Grade.OK]
    server.cnf = [line for f in broken for line in re.findall(r"`(.+)` under \[mysqld\]", f.cure)]
    assert server.cnf == ["innodb_rollback_on_timeout = ON", "max_connections = 300"]
    with server:
        yield server


def test_the_main_job_on_mysql_and_valkey(sid: Path, mysql: ForeignMySQL, tmp_path: Path) -> None:
    ledger, cache = (ForeignRedis(role, tmp_path / role) for role in RedisRole)
    for server in (ledger, cache):
        server.program = by_its_loader(sid, "usr/bin/valkey-server")
    facts = ask_mysql(mysql.url)
    assert "MariaDB" not in facts.version
    assert [f for f in judge_mysql(facts) if f.grade is not Grade.OK] == []
    with ledger, cache:
        main_job(
            tmp_path,
            {
                "FLASHSALE_LEDGER_URL": ledger.url,
                "FLASHSALE_CACHE_URL": cache.url,
                "FLASHSALE_MYSQL_URL": mysql.url,
            },
        )
