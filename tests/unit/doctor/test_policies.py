"""Every setting on which a promise rests: a good server, and one broken for each rule."""

from dataclasses import replace

import pytest

from flashsale.doctor.facts import MySQLFacts, RedisFacts
from flashsale.doctor.findings import failures, insist, judge_mysql, judge_redis
from flashsale.doctor.policies import BINLOG, Grade
from flashsale.doctor.policies import CACHE as CACHE_RULES
from flashsale.doctor.policies import LEDGER as LEDGER_RULES
from flashsale.doctor.policies import MYSQL as MYSQL_RULES
from flashsale.errors import UnreachableError
from flashsale.model import Durability
from flashsale.stack.redis import RedisRole

LEDGER = RedisFacts(
    version="7.0.15",
    role="master",
    clustered=False,
    config={
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "maxmemory-policy": "noeviction",
    },
)
CACHE = replace(LEDGER, config={"maxmemory": "268435456", "maxmemory-policy": "volatile-lru"})
MARIADB = MySQLFacts(
    version="10.11.19-MariaDB-0+deb12u1",
    charset="utf8mb4",
    variables={
        "innodb_flush_log_at_trx_commit": "1",
        "innodb_rollback_on_timeout": "ON",
        "log_bin": "OFF",
        "max_connections": "300",
        "read_only": "OFF",
        "sql_mode": "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES",
        "sync_binlog": "0",
    },
)
MYSQL = replace(MARIADB, version="8.0.36")


def _not_ok(findings: list) -> list[tuple[str, Grade]]:
    return [(f.name, f.grade) for f in findings if f.grade is not Grade.OK]


def test_servers_with_the_right_policy_pass() -> None:
    assert _not_ok(judge_redis(RedisRole.LEDGER, LEDGER)) == []
    assert _not_ok(judge_redis(RedisRole.CACHE, CACHE)) == []
    assert _not_ok(judge_mysql(MARIADB)) == []
    assert _not_ok(judge_mysql(MYSQL)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("no-appendfsync-on-rewrite", "yes"),
        ("maxmemory-policy", "allkeys-lru"),
        ("maxmemory-policy", ""),
    ],
)
def test_a_ledger_that_may_forget_fails(name: str, value: str) -> None:
    broken = replace(LEDGER, config={**(LEDGER.config or {}), name: value})
    assert _not_ok(judge_redis(RedisRole.LEDGER, broken)) == [(name, Grade.FAIL)]


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (replace(LEDGER, version="6.2.14"), "version"),
        (replace(LEDGER, version="unknown"), "version"),
        (replace(LEDGER, role="slave"), "role"),
        (replace(LEDGER, clustered=True), "cluster"),
    ],
)
def test_a_redis_of_the_wrong_kind_fails(broken: RedisFacts, name: str) -> None:
    assert _not_ok(judge_redis(RedisRole.LEDGER, broken)) == [(name, Grade.FAIL)]


def test_a_redis_that_hides_its_settings_is_a_warning() -> None:
    assert _not_ok(judge_redis(RedisRole.LEDGER, replace(LEDGER, config=None))) == [
        ("settings", Grade.WARN)
    ]


@pytest.mark.parametrize(
    ("name", "value"), [("maxmemory", "0"), ("maxmemory-policy", "noeviction")]
)
def test_a_cache_that_cannot_evict_is_a_warning(name: str, value: str) -> None:
    broken = replace(CACHE, config={**(CACHE.config or {}), name: value})
    assert _not_ok(judge_redis(RedisRole.CACHE, broken)) == [(name, Grade.WARN)]


@pytest.mark.parametrize(
    ("name", "value", "grade"),
    [
        ("innodb_flush_log_at_trx_commit", "2", Grade.FAIL),
        ("innodb_doublewrite", "OFF", Grade.FAIL),
        ("innodb_rollback_on_timeout", "OFF", Grade.FAIL),
        ("unique_checks", "OFF", Grade.FAIL),
        ("check_constraint_checks", "OFF", Grade.FAIL),
        ("sql_mode", "ONLY_FULL_GROUP_BY", Grade.FAIL),
        ("sql_mode", "", Grade.FAIL),
        ("read_only", "ON", Grade.FAIL),
        ("max_connections", "151", Grade.WARN),
    ],
)
def test_a_database_that_may_forget_or_refuse_is_found(name: str, value: str, grade: Grade) -> None:
    broken = replace(MARIADB, variables={**MARIADB.variables, name: value})
    assert _not_ok(judge_mysql(broken)) == [(name, grade)]


@pytest.mark.parametrize(
    ("version", "good"),
    [
        ("10.6.0-MariaDB", True),
        ("10.5.29-MariaDB", False),
        ("11.4.2-MariaDB", True),
        ("8.0.11", True),
        ("5.7.44", False),
    ],
)
def test_database_versions(version: str, good: bool) -> None:
    findings = _not_ok(judge_mysql(replace(MARIADB, version=version)))
    assert findings == ([] if good else [("version", Grade.FAIL)])


def test_an_unsynced_binlog_is_a_warning_only_where_there_is_one() -> None:
    logging = replace(MYSQL, variables={**MYSQL.variables, "log_bin": "ON"})
    assert _not_ok(judge_mysql(logging)) == [("sync_binlog", Grade.WARN)]


def test_a_narrow_charset_fails() -> None:
    findings = _not_ok(judge_mysql(replace(MARIADB, charset="latin1")))
    assert findings == [("character set", Grade.FAIL)]


EVERYSEC = replace(LEDGER, config={**(LEDGER.config or {}), "appendfsync": "everysec"})


def test_everysec_by_name_is_told_with_what_it_can_lose() -> None:
    chosen = judge_redis(RedisRole.LEDGER, EVERYSEC, durability=Durability.EVERYSEC)
    assert _not_ok(chosen) == [("appendfsync", Grade.WARN)]
    (told,) = (finding for finding in chosen if finding.name == "appendfsync")
    assert (told.found, told.line) == ("everysec", "appendfsync everysec")
    assert "power cut" in told.why
    insist(chosen)
    assert _not_ok(judge_redis(RedisRole.LEDGER, EVERYSEC)) == [("appendfsync", Grade.FAIL)]


@pytest.mark.parametrize(("fsync", "grade"), [("always", Grade.OK), ("no", Grade.FAIL)])
def test_a_choice_forbids_nothing_stricter_and_nothing_looser(fsync: str, grade: Grade) -> None:
    facts = replace(LEDGER, config={**(LEDGER.config or {}), "appendfsync": fsync})
    found = judge_redis(RedisRole.LEDGER, facts, durability=Durability.EVERYSEC)
    assert [f.grade for f in found if f.name == "appendfsync"] == [grade]


def test_every_setting_that_a_promise_rests_on_has_its_line_why_and_cure() -> None:
    for rule in (*LEDGER_RULES, *CACHE_RULES, *MYSQL_RULES, BINLOG):
        assert rule.line.startswith(rule.name), rule
        assert rule.why
        assert rule.cure
    good = [*judge_redis(RedisRole.LEDGER, LEDGER), *judge_mysql(MARIADB)]
    told = {finding.name: finding.why for finding in good if finding.line}
    assert told.keys() == {rule.name for rule in (*LEDGER_RULES, *MYSQL_RULES)}
    assert all(told.values())


def test_insisting_names_the_setting_and_the_cure_in_one_line() -> None:
    broken = replace(LEDGER, config={**(LEDGER.config or {}), "appendfsync": "everysec"})
    with pytest.raises(
        UnreachableError, match=r"^ledger: appendfsync is everysec.*CONFIG SET"
    ) as e:
        insist(judge_redis(RedisRole.LEDGER, broken))
    assert "\n" not in str(e.value)


def test_warnings_are_not_insisted_on() -> None:
    findings = judge_redis(RedisRole.LEDGER, replace(LEDGER, config=None))
    insist(findings)
    assert failures(findings) == []
