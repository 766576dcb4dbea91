"""What was looked at, what it means, and the cure: the settings of Redis and MySQL on which the
sale's promises rest, and how they are judged.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import NamedTuple, TypeAlias

from flashsale.doctor.facts import MySQLFacts, RedisFacts, ask_mysql, ask_redis
from flashsale.errors import Indeterminate, Unavailable, UnreachableError
from flashsale.seckill.permit import Books, behind
from flashsale.stack.redis import RedisRole
from flashsale.storage.mysql import engine
from flashsale.storage.roles import sync_client


class Grade(StrEnum):
    """What a finding means for the promises of the sale."""

    OK = "ok"
    WARN = "warn"  # slower, or less than it could be
    FAIL = "fail"  # a promise would break


@dataclass(frozen=True)
class Finding:
    """A row of `flashsale doctor`. The cure is empty where nothing is to be cured."""

    subject: str
    name: str
    found: str
    grade: Grade
    cure: str = ""


def judged(
    subject: str, name: str, found: object, holds: bool, cure: str, grade: Grade = Grade.FAIL
) -> Finding:
    """A finding that is OK where it holds, and otherwise of `grade` with its cure."""
    if holds:
        return Finding(subject, name, str(found), Grade.OK)
    return Finding(subject, name, str(found), grade, cure)


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """Those that would break a promise."""
    return [finding for finding in findings if finding.grade is Grade.FAIL]


_Answer: TypeAlias = RedisFacts | MySQLFacts | UnreachableError
_Question: TypeAlias = Callable[[], RedisFacts | MySQLFacts]

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


def _conf(line: str) -> str:
    """How a Redis is told now, and where to write it so that it is told again at its next start."""
    return f"CONFIG SET {line}; and write `{line}` into its redis.conf"


def _cnf(line: str) -> str:
    """How MySQL and MariaDB are told what they read when they start."""
    return f"write `{line}` under [mysqld] in its my.cnf, and restart it"


def _is(wanted: str) -> Callable[[str], bool]:
    return lambda value: value == wanted


def _is_on(value: str) -> bool:
    return value.upper() in ("1", "ON", "YES")


def _is_off(value: str) -> bool:
    return not _is_on(value)


_LEDGER_RULES = (
    Rule("appendonly", _is("yes"), _conf("appendonly yes")),
    Rule("appendfsync", _is("always"), _conf("appendfsync always")),
    Rule("no-appendfsync-on-rewrite", _is("no"), _conf("no-appendfsync-on-rewrite no")),
    Rule("maxmemory-policy", _is("noeviction"), _conf("maxmemory-policy noeviction")),
)

_CACHE_RULES = (
    Rule(
        "maxmemory",
        lambda value: value != "0",
        f"{_conf('maxmemory 256mb')}, so that it evicts before the machine swaps",
        Grade.WARN,
    ),
    Rule(
        "maxmemory-policy",
        lambda value: value != "noeviction",
        _conf("maxmemory-policy volatile-lru"),
        Grade.WARN,
    ),
)

_MYSQL_RULES = (
    Rule(
        "innodb_flush_log_at_trx_commit",
        _is("1"),
        _cnf("innodb_flush_log_at_trx_commit = 1"),
    ),
    Rule(
        "sql_mode",
        lambda value: bool({"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES"} & set(value.split(","))),
        _cnf("sql_mode = STRICT_TRANS_TABLES"),
    ),
    Rule("innodb_rollback_on_timeout", _is_on, _cnf("innodb_rollback_on_timeout = ON")),
    Rule("read_only", _is_off, "name the primary, not a replica of it"),
    Rule(
        "max_connections",
        lambda value: int(value or 0) >= _CONNECTIONS_LEAST,
        f"{_cnf('max_connections = 300')}: every process keeps up to 50",
        Grade.WARN,
    ),
)

_BINLOG_RULE = Rule("sync_binlog", _is("1"), _cnf("sync_binlog = 1"), Grade.WARN)


def judge_redis(
    role: RedisRole, facts: RedisFacts, *, is_ledger_too: bool = False
) -> list[Finding]:
    """What a Redis of this role must be; a cache in the ledger's Redis may not evict. Pure."""
    prefix = "" if facts.product == "Redis" else f"{facts.product} "
    recent = _numbers(facts.version) >= _REDIS_LEAST
    cluster = "on" if facts.clustered else "off"
    one_node = "name a Redis without cluster mode: one script touches several keys"
    findings = [
        judged(
            role, "version", f"{prefix}{facts.version}", recent, "upgrade it to Redis 7.0 or newer"
        ),
        judged(role, "role", facts.role, facts.role == "master", "name the primary, not a replica"),
        judged(role, "cluster", cluster, not facts.clustered, one_node),
    ]
    if is_ledger_too and role is RedisRole.CACHE:
        cure = "it may evict nothing; for a cache that may, start another Redis for --cache-url"
        return [*findings, Finding(role, "server", "the ledger's, too", Grade.WARN, cure)]
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
    utf8 = f"ALTER DATABASE `{facts.database}` CHARACTER SET utf8mb4"
    logs = (_BINLOG_RULE,) if _is_on(facts.variables.get("log_bin", "")) else ()
    return [
        judged("mysql", "version", facts.version, _numbers(facts.version) >= least, cure),
        judged("mysql", "character set", facts.charset, facts.charset == "utf8mb4", utf8),
        *_applied((*_MYSQL_RULES, *logs), "mysql", facts.variables),
    ]


def examine(ledger_url: str | None, cache_url: str | None, mysql_url: str | None) -> list[Finding]:
    """Findings on the stores that are named. One server in both roles is held to the ledger's.

    Raises UnreachableError where one does not answer, UsageError for a URL that is none.
    """
    answers = _ask(ledger_url, cache_url, mysql_url)
    for answer in answers:
        if isinstance(answer, UnreachableError):
            raise answer
    return _judge(answers)


def survey(ledger_url: str | None, cache_url: str | None, mysql_url: str | None) -> list[Finding]:
    """As `examine`, but a store that does not answer is a finding among the others', and so is a
    ledger that is behind its MySQL."""
    findings = _judge(_ask(ledger_url, cache_url, mysql_url))
    if ledger_url and mysql_url:
        findings += compare_books(ledger_url, mysql_url)
    return findings


_REBUILD = "run `flashsale rebuild`, which shows what it would restore, then with --apply"


def compare_books(ledger_url: str, mysql_url: str) -> list[Finding]:
    """Whether the ledger is behind MySQL; nothing where they cannot be asked, or have no tables."""
    pool = engine(mysql_url)
    try:
        with sync_client(ledger_url) as client:
            mysql, ledger = Books(client, pool).compare()
    except (Unavailable, Indeterminate):
        return []
    finally:
        pool.dispose()
    found = [reason.told for reason in behind(mysql, ledger)]
    if ledger.closed:
        found.append(f"closed: {ledger.closed}")
    told = "; ".join(found) or "agree with MySQL"
    return [judged("ledger", "books", told, not found, _REBUILD)]


def _ask(
    ledger_url: str | None, cache_url: str | None, mysql_url: str | None
) -> Sequence[_Answer | None]:
    """What ledger, cache and MySQL say, in this order; asked at once, since each may be silent."""

    def ask(store: _Question) -> _Answer:
        try:
            return store()
        except UnreachableError as silence:
            return silence

    questions: list[_Question | None] = [
        partial(ask_redis, RedisRole.LEDGER, ledger_url) if ledger_url else None,
        partial(ask_redis, RedisRole.CACHE, cache_url) if cache_url else None,
        partial(ask_mysql, mysql_url) if mysql_url else None,
    ]
    with ThreadPoolExecutor(len(questions)) as asking:
        return list(asking.map(lambda question: question and ask(question), questions))


def _judge(answers: Sequence[_Answer | None]) -> list[Finding]:
    """Findings on what `_ask` brought. Pure."""
    redis = [answer.run_id for answer in answers if isinstance(answer, RedisFacts)]
    is_one = len(redis) == 2 and redis[0] == redis[1] != ""
    findings: list[Finding] = []
    for name, answer in zip((*RedisRole, "mysql"), answers, strict=True):
        if isinstance(answer, UnreachableError):
            findings.append(Finding(name, "answers", "no", Grade.FAIL, str(answer)))
        elif isinstance(answer, RedisFacts):
            findings += judge_redis(RedisRole(name), answer, is_ledger_too=is_one)
        elif isinstance(answer, MySQLFacts):
            findings += judge_mysql(answer)
    return findings


def insist(findings: Iterable[Finding]) -> None:
    """Raise UnreachableError with the first broken promise and its cure."""
    broken = failures(findings)
    more = f" (`flashsale doctor` lists {len(broken) - 1} more)" if len(broken) > 1 else ""
    for finding in broken:
        raise UnreachableError(
            f"{finding.subject}: {finding.name} is {finding.found or 'not set'}, which breaks "
            f"a promise of the sale; {finding.cure}{more}"
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
