"""What it means that a Redis, a cluster or a MySQL is as it says, and the cure."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import TypeAlias

from flashsale.doctor.facts import (
    ClusterFacts,
    MySQLFacts,
    NodeFacts,
    RedisFacts,
    ask_ledger,
    ask_mysql,
    ask_redis,
)
from flashsale.doctor.policies import (
    BINLOG,
    CACHE,
    LOSS,
    MYSQL,
    SEMI_SYNC,
    SEMI_SYNC_WHY,
    Grade,
    Judged,
    Policy,
    has_binlog,
    judge_replication,
    ledger_rules,
)
from flashsale.errors import Indeterminate, Unavailable, UnreachableError
from flashsale.keys import CLUSTER
from flashsale.model import Durability
from flashsale.orders.books import read_uneven, reconcile, wrong_of
from flashsale.orders.lifecycle import CLOCK_SLACK_MS
from flashsale.seckill.permit import BooksComparison, behind, read_ledger
from flashsale.settings import ClaimSettings
from flashsale.stack.redis import RedisRole
from flashsale.storage.mysql import engine
from flashsale.storage.mysql import transaction as mysql_transaction
from flashsale.storage.roles import Ledgers
from flashsale.storage.tables import journal, seckill_voucher, stream_position, voucher_order


@dataclass(frozen=True)
class Diagnosis:
    """A row of `flashsale doctor`. The cure is empty where nothing is to be cured.

    Of a setting on which a promise rests, `line` sets it, and `why` says what rests on it.
    """

    subject: str
    name: str
    found: str
    grade: Grade
    cure: str = ""
    line: str = ""
    why: str = ""


def judged(
    subject: str, name: str, found: object, holds: bool, cure: str, grade: Grade = Grade.FAIL
) -> Diagnosis:
    """A finding that is OK where it holds, and otherwise of `grade` with its cure."""
    if holds:
        return Diagnosis(subject, name, str(found), Grade.OK)
    return Diagnosis(subject, name, str(found), grade, cure)


def failures(findings: Iterable[Diagnosis]) -> list[Diagnosis]:
    """Those that would break a promise."""
    return [finding for finding in findings if finding.grade is Grade.FAIL]


_Facts: TypeAlias = RedisFacts | ClusterFacts | MySQLFacts
_Answer: TypeAlias = _Facts | UnreachableError
_Question: TypeAlias = Callable[[], _Facts]

_REDIS_LEAST = (7, 0)
_MYSQL_LEAST = (8, 0)
_MARIADB_LEAST = (10, 6)
_CLAIMS = ClaimSettings.model_construct()
_ALWAYS = "`appendfsync always`, and no --durability, acknowledges what is on the disk"


def judge_redis(
    role: RedisRole,
    facts: RedisFacts,
    *,
    is_ledger_too: bool = False,
    durability: Durability = Durability.ALWAYS,
    claims: ClaimSettings = _CLAIMS,
) -> list[Diagnosis]:
    """What a Redis of this role must be; a cache in the ledger's Redis may not evict. Pure."""
    cluster = "on" if facts.clustered else "off"
    one_node = "name a Redis without cluster mode: one script touches several keys"
    if role is RedisRole.LEDGER:
        one_node = "name it as a cluster (redis+cluster://…), or a Redis without cluster mode"
    findings = [
        _judge_version(role, facts),
        judged(role, "role", facts.role, facts.role == "master", "name the primary, not a replica"),
        judged(role, "cluster", cluster, not facts.clustered, one_node),
    ]
    if is_ledger_too and role is RedisRole.CACHE:
        cure = "it may evict nothing; for a cache that may, start another Redis for --cache-url"
        return [*findings, Diagnosis(role, "server", "the ledger's, too", Grade.WARN, cure)]
    if facts.config is None:
        cure = "allow CONFIG GET, or see to it by hand that its settings are this role's"
        return [*findings, Diagnosis(role, "settings", "CONFIG is refused", Grade.WARN, cure)]
    if role is RedisRole.CACHE:
        return [*findings, *_applied(CACHE, role, facts.config)]
    return [*findings, *_judge_kept(role, facts, facts.config, durability, claims)]


def _judge_version(subject: str, facts: RedisFacts) -> Diagnosis:
    prefix = "" if facts.product == "Redis" else f"{facts.product} "
    recent = _numbers(facts.version) >= _REDIS_LEAST
    cure = "upgrade it to Redis 7.0 or newer"
    return judged(subject, "version", f"{prefix}{facts.version}", recent, cure)


def _judge_kept(
    subject: str,
    facts: RedisFacts,
    config: Mapping[str, str],
    durability: Durability,
    claims: ClaimSettings,
    *,
    in_cluster: bool = False,
) -> list[Diagnosis]:
    """Whether a ledger's server keeps what it acknowledged, and what does when it is gone."""
    found = _applied(ledger_rules(durability), subject, config)
    rows: Sequence[Judged] = ()
    if facts.role == "master":
        version, copies = _numbers(facts.version), facts.replication
        rows = judge_replication(copies, config, version, durability, claims, in_cluster=in_cluster)
    outlives = (Diagnosis(subject, *astuple(row)) for row in rows)
    return [*(_with_loss(each, durability) for each in found), *outlives]


def judge_cluster(
    facts: ClusterFacts,
    durability: Durability = Durability.ALWAYS,
    claims: ClaimSettings = _CLAIMS,
) -> list[Diagnosis]:
    """What a ledger on a cluster must be: lanes, its masters' clocks, then node by node. Pure."""
    ledger = RedisRole.LEDGER
    masters = [each for each in facts.nodes if not each.node.master]
    served = {lane for each in masters for lane in each.node.lanes}
    homeless = [lane.tag for lane in CLUSTER.lanes if lane.number not in served]
    clocks = [each.ahead_ms for each in masters if each.says]
    apart_ms = max(clocks, default=0.0) - min(clocks, default=0.0)
    count = len(facts.nodes) - len(masters)
    state = "`redis-cli cluster info` tells why; claims are refused until it is ok"
    return [
        judged(ledger, "cluster", facts.state or "unknown", facts.state == "ok", state),
        judged(
            ledger,
            "lanes",
            f"{', '.join(homeless)} without a master"
            if homeless
            else f"each has one of {len(masters)} masters, which have {count} replicas",
            not homeless,
            "let a master have their slots (`redis-cli cluster addslots`, of `cluster keyslot`)",
        ),
        judged(
            ledger,
            "clocks",
            f"{apart_ms:.0f} ms apart",
            apart_ms <= CLOCK_SLACK_MS,
            f"keep the masters' clocks within {CLOCK_SLACK_MS} ms of one another, by NTP",
        ),
        *(row for each in facts.nodes for row in _judge_node(each, facts, durability, claims)),
    ]


def _judge_node(
    found: NodeFacts, facts: ClusterFacts, durability: Durability, claims: ClaimSettings
) -> list[Diagnosis]:
    node, says = found.node, found.says
    subject = f"{RedisRole.LEDGER} {node.place}"
    if says is None:
        grade = Grade.FAIL if node.lanes else Grade.WARN
        cure = "start it, or take it out of the cluster (`redis-cli cluster forget`)"
        return [Diagnosis(subject, "answers", "no", grade, cure)]
    master = next((each.node.place for each in facts.nodes if each.node.id == node.master), "")
    tags = ", ".join(CLUSTER.lanes[number].tag for number in node.lanes) or "no lane"
    role = f"replica of {master or 'one that is gone'}" if node.master else f"master of {tags}"
    findings = [_judge_version(subject, says), Diagnosis(subject, "role", role, Grade.OK)]
    if says.config is None:
        cure = "allow CONFIG GET, or see to it by hand that its settings are a ledger's"
        return [*findings, Diagnosis(subject, "settings", "CONFIG is refused", Grade.WARN, cure)]
    whole = says.config.get("cluster-require-full-coverage", "yes")
    name = "cluster-require-full-coverage"
    findings.append(judged(subject, name, whole, whole == "no", _FULL, Grade.WARN))
    kept = _judge_kept(subject, says, says.config, durability, claims, in_cluster=True)
    return [*findings, *kept]


_FULL = "CONFIG SET cluster-require-full-coverage no: else all lanes stop when one master is away"


def _with_loss(finding: Diagnosis, durability: Durability) -> Diagnosis:
    """What was chosen holds, and is told with what it can lose."""
    if finding.name == "appendfsync" and finding.found == durability in LOSS:
        return replace(finding, grade=Grade.WARN, cure=_ALWAYS)
    return finding


def judge_mysql(facts: MySQLFacts) -> list[Diagnosis]:
    """What the order database must be. Pure."""
    maria = "mariadb" in facts.version.lower()
    kind, least = ("MariaDB", _MARIADB_LEAST) if maria else ("MySQL", _MYSQL_LEAST)
    cure = f"upgrade it to {kind} {'.'.join(map(str, least))} or newer"
    utf8 = f"ALTER DATABASE `{facts.database}` CHARACTER SET utf8mb4"
    logs = (BINLOG,) if has_binlog(facts.variables) else ()
    semi = [_semi_synchronous(facts.variables)] if logs else []
    return [
        judged("mysql", "version", facts.version, _numbers(facts.version) >= least, cure),
        judged("mysql", "character set", facts.charset, facts.charset == "utf8mb4", utf8),
        *_applied((*MYSQL, *logs), "mysql", facts.variables),
        *semi,
        *_unique_keys(facts.keys_missing),
    ]


_OF_THE_SALE = {table.name for table in (voucher_order, seckill_voucher, stream_position, journal)}


def _unique_keys(missing: Sequence[str] | None) -> list[Diagnosis]:
    """Whether the tables have the keys that keep a second order of a user out."""
    if missing is None:
        return []
    found = "; ".join(missing) or "as they were created"
    cure = "take out the rows that are there twice (`flashsale verify` names them), then run these"
    breaks = any(words.split()[2] in _OF_THE_SALE for words in missing)
    grade = Grade.FAIL if breaks else Grade.WARN
    told = "missing: " * bool(missing) + found
    row = judged("mysql", "unique keys", told, not missing, cure, grade)
    return [replace(row, why="nothing else keeps a second live order of a user out of MySQL")]


def _semi_synchronous(variables: Mapping[str, str]) -> Diagnosis:
    """Whether a failover of MySQL can lose rows; it is no promise of the sale's that it cannot."""
    name = next((name for name in SEMI_SYNC if name in variables), SEMI_SYNC[0])
    found = variables.get(name, "not installed")
    point = variables.get(name.replace("_enabled", "_wait_point"), "AFTER_SYNC")
    late = found.upper() in ("ON", "1") and point.upper() != "AFTER_SYNC"
    cure = f"write `{name.replace('_enabled', '_wait_point')} = AFTER_SYNC` under [mysqld]"
    row = judged("mysql", "semi-synchronous replication", found, not late, cure, Grade.WARN)
    return replace(row, line=f"{name} = ON", why=SEMI_SYNC_WHY)


def examine(
    ledger_url: str | None,
    cache_url: str | None,
    mysql_url: str | None,
    durability: Durability = Durability.ALWAYS,
) -> list[Diagnosis]:
    """Findings on the stores that are named. One server in both roles is held to the ledger's.

    Raises UnreachableError where one does not answer, UsageError for a URL that is none.
    """
    answers = _ask(ledger_url, cache_url, mysql_url)
    for answer in answers:
        if isinstance(answer, UnreachableError):
            raise answer
    return _judge(answers, durability)


def survey(
    ledger_url: str | None,
    cache_url: str | None,
    mysql_url: str | None,
    durability: Durability = Durability.ALWAYS,
) -> list[Diagnosis]:
    """As `examine`, but a store that does not answer is a finding among the others', and so is a
    ledger that is behind its MySQL."""
    answers = _ask(ledger_url, cache_url, mysql_url)
    findings = _judge(answers, durability)
    ledger, _, mysql = answers
    if (
        ledger_url
        and mysql_url
        and isinstance(ledger, (RedisFacts, ClusterFacts))
        and isinstance(mysql, MySQLFacts)
    ):
        findings += compare_books(ledger_url, mysql_url)
    return findings


_REBUILD = "run `flashsale rebuild`, which shows what it would restore, then with --apply"


_AGAIN_S = 0.5
BOOKS, SALES, AWAY = "books", "sales", "lanes' masters"
"""The findings of `compare_books`: nothing is sold where the first does not hold, and nothing of
some lanes where the last is among them."""


def compare_books(ledger_url: str, mysql_url: str) -> list[Diagnosis]:
    """Whether the ledger is behind MySQL, and whether each sale is whole in both; nothing where
    they cannot be asked, or have no tables. Of a cluster, which lanes cannot be asked: its nodes
    may all answer, and a slot be on its way, or without a master."""
    pool = engine(mysql_url)
    try:
        ledgers = Ledgers.at(ledger_url)
        with closing(ledgers):
            lanes = [BooksComparison(client, pool) for client in ledgers.clients]
            away = list(_away(lanes)) if ledgers.layout is CLUSTER else []
            if away:
                return [judged("ledger", AWAY, "; ".join(away), False, _SETTLE)]
            compared = [books.compare() for books in lanes]
            looks = [reconcile(books) for books in lanes]
            if any(look.is_wrong for look in looks):  # what stays so is missing, not on its way
                time.sleep(_AGAIN_S)
                looks = [reconcile(books) for books in lanes]
            with mysql_transaction(pool) as connection:
                uneven = read_uneven(connection)
    except (Unavailable, Indeterminate):
        return []
    finally:
        pool.dispose()
    found = [reason.told for mysql, ledger in compared for reason in behind(mysql, ledger)]
    found += [f"closed: {ledger.closed}" for _, ledger in compared if ledger.closed]
    looks[0] = replace(looks[0], uneven_sales=uneven)
    wrong = [told for look in looks for told in wrong_of(look)]
    return [
        judged("ledger", BOOKS, "; ".join(found) or "agree with MySQL", not found, _REBUILD),
        judged("ledger", SALES, "; ".join(wrong) or "whole", not wrong, _REBUILD),
    ]


_SETTLE = (
    "until then claims of these are refused; `redis-cli cluster nodes` shows who has which slot"
)


def _away(lanes: Iterable[BooksComparison]) -> Iterator[str]:
    """The lanes that cannot be asked, and why: not even once it is known where they are now."""
    for books in lanes:
        try:
            with suppress(Unavailable, Indeterminate):
                read_ledger(books.ledger)
                continue
            read_ledger(books.ledger)
        except (Unavailable, Indeterminate) as trouble:
            yield f"{books.lane.tag}: {trouble}"


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
        partial(ask_ledger, ledger_url) if ledger_url else None,
        partial(ask_redis, RedisRole.CACHE, cache_url) if cache_url else None,
        partial(ask_mysql, mysql_url) if mysql_url else None,
    ]
    with ThreadPoolExecutor(len(questions)) as asking:
        return list(asking.map(lambda question: question and ask(question), questions))


def _judge(answers: Sequence[_Answer | None], durability: Durability) -> list[Diagnosis]:
    """Findings on what `_ask` brought, for claims as the environment has them."""
    claims = ClaimSettings.load()
    redis = [answer.run_id for answer in answers if isinstance(answer, RedisFacts)]
    is_one = len(redis) == 2 and redis[0] == redis[1] != ""
    findings: list[Diagnosis] = []
    for name, answer in zip((*RedisRole, "mysql"), answers, strict=True):
        if isinstance(answer, UnreachableError):
            findings.append(Diagnosis(name, "answers", "no", Grade.FAIL, str(answer)))
        elif isinstance(answer, RedisFacts):
            findings += judge_redis(
                RedisRole(name),
                answer,
                is_ledger_too=is_one,
                durability=durability,
                claims=claims,
            )
        elif isinstance(answer, ClusterFacts):
            findings += judge_cluster(answer, durability, claims)
        elif isinstance(answer, MySQLFacts):
            findings += judge_mysql(answer)
    return findings


def insist(findings: Iterable[Diagnosis]) -> None:
    """Raise UnreachableError with the first broken promise and its cure."""
    broken = failures(findings)
    more = f" (`flashsale doctor` lists {len(broken) - 1} more)" if len(broken) > 1 else ""
    for finding in broken:
        raise UnreachableError(
            f"{finding.subject}: {finding.name} is {finding.found or 'not set'}, which breaks "
            f"a promise of the sale; {finding.cure}{more}"
        )


def _applied(rules: Iterable[Policy], subject: str, settings: Mapping[str, str]) -> list[Diagnosis]:
    return [
        replace(
            judged(subject, rule.name, value, rule.holds(value), rule.cure, rule.grade),
            line=rule.line,
            why=rule.why,
        )
        for rule in rules
        for value in (settings.get(rule.name, rule.absent),)
    ]


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0,)
