"""The settings of Redis and MySQL on which the sale's promises rest, and how they are judged."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from flashsale.errors import UnreachableError
from flashsale.stack.facts import MySQLFacts, RedisFacts, ask_mysql, ask_redis
from flashsale.stack.finding import Finding, Grade, failures, judged
from flashsale.stack.redis import RedisRole

_REDIS_LEAST = (7, 0)
_MYSQL_LEAST = (8, 0)
_MARIADB_LEAST = (10, 6)
_CONNECTIONS_LEAST = 200


class Rule(NamedTuple):
    """One setting: when it holds, how it is cured, and what it means where it does not hold."""

    name: str
    holds: Callable[[str], bool]
    cure: str
    grade: Grade = Grade.FAIL


def _is(wanted: str) -> Callable[[str], bool]:
    return lambda value: value == wanted


def _is_on(value: str) -> bool:
    return value.upper() in ("1", "ON", "YES")


def _is_off(value: str) -> bool:
    return not _is_on(value)


_LEDGER_RULES = (
    Rule("appendonly", _is("yes"), "CONFIG SET appendonly yes"),
    Rule("appendfsync", _is("always"), "CONFIG SET appendfsync always"),
    Rule("no-appendfsync-on-rewrite", _is("no"), "CONFIG SET no-appendfsync-on-rewrite no"),
    Rule("maxmemory-policy", _is("noeviction"), "CONFIG SET maxmemory-policy noeviction"),
)

_CACHE_RULES = (
    Rule(
        "maxmemory",
        lambda value: value != "0",
        "CONFIG SET maxmemory 256mb, so that it evicts before the machine swaps",
        Grade.WARN,
    ),
    Rule(
        "maxmemory-policy",
        lambda value: value != "noeviction",
        "CONFIG SET maxmemory-policy volatile-lru",
        Grade.WARN,
    ),
)

_MYSQL_RULES = (
    Rule(
        "innodb_flush_log_at_trx_commit",
        _is("1"),
        "SET GLOBAL innodb_flush_log_at_trx_commit = 1",
    ),
    Rule(
        "sql_mode",
        lambda value: bool({"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES"} & set(value.split(","))),
        "add STRICT_TRANS_TABLES to the global sql_mode",
    ),
    Rule(
        "innodb_rollback_on_timeout", _is_on, "start the server with innodb_rollback_on_timeout=ON"
    ),
    Rule("read_only", _is_off, "name the primary, not a replica of it"),
    Rule(
        "max_connections",
        lambda value: int(value or 0) >= _CONNECTIONS_LEAST,
        "SET GLOBAL max_connections = 300: every process keeps up to 50",
        Grade.WARN,
    ),
)

_BINLOG_RULE = Rule("sync_binlog", _is("1"), "SET GLOBAL sync_binlog = 1", Grade.WARN)


def judge_redis(role: RedisRole, facts: RedisFacts) -> list[Finding]:
    """What a Redis of this role must be. Pure."""
    recent = _numbers(facts.version) >= _REDIS_LEAST
    cluster = "on" if facts.clustered else "off"
    one_node = "name a Redis without cluster mode: one script touches several keys"
    findings = [
        judged(role, "version", facts.version, recent, "upgrade it to Redis 7.0 or newer"),
        judged(role, "role", facts.role, facts.role == "master", "name the primary, not a replica"),
        judged(role, "cluster", cluster, not facts.clustered, one_node),
    ]
    if facts.config is None:
        cure = "allow CONFIG GET, or see to it by hand that its settings are this role's"
        return [*findings, Finding(role, "settings", "CONFIG is refused", Grade.WARN, cure)]
    rules = _LEDGER_RULES if role is RedisRole.LEDGER else _CACHE_RULES
    return [*findings, *_applied(rules, role, facts.config)]


def judge_mysql(facts: MySQLFacts) -> list[Finding]:
    """What the order database must be. Pure."""
    maria = "mariadb" in facts.version.lower()
    kind, least = ("MariaDB", _MARIADB_LEAST) if maria else ("MySQL", _MYSQL_LEAST)
    cure = f"upgrade it to {kind} {'.'.join(map(str, least))} or newer"
    utf8 = "ALTER DATABASE … CHARACTER SET utf8mb4"
    logs = (_BINLOG_RULE,) if _is_on(facts.variables.get("log_bin", "")) else ()
    return [
        judged("mysql", "version", facts.version, _numbers(facts.version) >= least, cure),
        judged("mysql", "character set", facts.charset, facts.charset == "utf8mb4", utf8),
        *_applied((*_MYSQL_RULES, *logs), "mysql", facts.variables),
    ]


def examine(ledger_url: str | None, cache_url: str | None, mysql_url: str | None) -> list[Finding]:
    """Findings on the stores that are named. One server in both roles is held to the ledger's.

    Raises UnreachableError where one does not answer.
    """
    findings: list[Finding] = []
    if ledger_url:
        findings += judge_redis(RedisRole.LEDGER, ask_redis(RedisRole.LEDGER, ledger_url))
    if cache_url and cache_url != ledger_url:
        findings += judge_redis(RedisRole.CACHE, ask_redis(RedisRole.CACHE, cache_url))
    if mysql_url:
        findings += judge_mysql(ask_mysql(mysql_url))
    return findings


def insist(findings: Iterable[Finding]) -> None:
    """Raise UnreachableError with the first broken promise and its cure."""
    for finding in failures(findings):
        raise UnreachableError(
            f"{finding.subject}: {finding.name} is {finding.found or 'not set'}, which breaks "
            f"a promise of the sale; {finding.cure}"
        )


def _applied(rules: Iterable[Rule], subject: str, settings: Mapping[str, str]) -> list[Finding]:
    return [
        judged(subject, rule.name, value, rule.holds(value), rule.cure, rule.grade)
        for rule in rules
        for value in (settings.get(rule.name, ""),)
    ]


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0,)
