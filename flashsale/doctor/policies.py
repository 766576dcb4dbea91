"""What the promises of a sale rest on: settings of Redis and MySQL, each with the line that sets
it, why, what to do where it is otherwise, and what that means; and of a ledger that is to outlive
its server, its Sentinels, its replicas and what a failover can lose.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from flashsale.doctor.facts import Replication
from flashsale.model import Durability
from flashsale.settings import ClaimSettings

CONNECTIONS_LEAST = 200


class Grade(StrEnum):
    """What a finding means for the promises of the sale."""

    OK = "ok"
    WARN = "warn"  # slower, or less than it could be
    FAIL = "fail"  # a promise would break


@dataclass(frozen=True, slots=True)
class Policy:
    """One setting: when it holds, the line that sets it, why, the cure, and what it means where it
    does not hold. `absent` is the value of a server that does not know it."""

    name: str
    holds: Callable[[str], bool]
    line: str
    why: str
    cure: str
    grade: Grade = Grade.FAIL
    absent: str = ""


def _conf(line: str) -> str:
    """How a Redis is told now, and where to write it so that it is told again at its next start."""
    return f"CONFIG SET {line}; and write `{line}` into its redis.conf"


def _cnf(line: str) -> str:
    """How MySQL and MariaDB are told what they read when they start."""
    return f"write `{line}` under [mysqld] in its my.cnf, and restart it"


def _redis(name: str, wanted: str, why: str, grade: Grade = Grade.FAIL) -> Policy:
    line = f"{name} {wanted}"
    return Policy(name, wanted.__eq__, line, why, _conf(line), grade)


def _mysql(
    name: str,
    wanted: str,
    why: str,
    holds: Callable[[str], bool] | None = None,
    grade: Grade = Grade.FAIL,
    absent: str = "",
) -> Policy:
    line = f"{name} = {wanted}"
    return Policy(name, holds or wanted.__eq__, line, why, _cnf(line), grade, absent)


def _is_on(value: str) -> bool:
    return value.upper() in ("1", "ON", "YES")


def _is_off(value: str) -> bool:
    return not _is_on(value)


def _is_not(unwanted: str) -> Callable[[str], bool]:
    return lambda value: value != unwanted


LEDGER = (
    _redis(
        "appendonly", "yes", "an order is acknowledged when it is in the file, not only in memory"
    ),
    _redis("appendfsync", "always", "an order is acknowledged when it is on the disk"),
    _redis(
        "no-appendfsync-on-rewrite",
        "no",
        "while the file is rewritten, orders are acknowledged that are not on the disk",
    ),
    _redis(
        "maxmemory-policy",
        "noeviction",
        "a ledger that is full refuses claims; one that evicts forgets who bought",
    ),
)
CACHE = (
    Policy(
        "maxmemory",
        _is_not("0"),
        "maxmemory 256mb",
        "a cache without a limit swaps before it evicts",
        f"{_conf('maxmemory 256mb')}, so that it evicts before the machine swaps",
        Grade.WARN,
    ),
    Policy(
        "maxmemory-policy",
        _is_not("noeviction"),
        "maxmemory-policy volatile-lru",
        "a full cache that may not evict refuses to be written to",
        _conf("maxmemory-policy volatile-lru"),
        Grade.WARN,
    ),
)
MYSQL = (
    _mysql(
        "innodb_flush_log_at_trx_commit",
        "1",
        "an order leaves the queue when its row is on the disk",
    ),
    _mysql(
        "innodb_doublewrite",
        "ON",
        "a power cut in the middle of a page leaves rows that nobody can read",
        lambda value: value.upper() not in ("OFF", "0", "DETECT_ONLY"),
    ),
    _mysql(
        "sql_mode",
        "STRICT_TRANS_TABLES",
        "a value that does not fit is an error, not another value",
        lambda value: bool({"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES"} & set(value.split(","))),
    ),
    _mysql(
        "innodb_rollback_on_timeout",
        "ON",
        "after a lock's time-out, half of a batch would be committed: rows without their units",
        _is_on,
    ),
    _mysql(
        "unique_checks",
        "ON",
        "one live order a user and voucher is a unique key",
        _is_on,
        absent="ON",
    ),
    _mysql(
        "check_constraint_checks",
        "ON",
        "stock below nought is refused by a CHECK",
        _is_on,
        absent="ON",
    ),
    Policy(
        "read_only",
        _is_off,
        "read_only = OFF",
        "rows are written to the primary, and read where they are written",
        "name the primary, not a replica of it",
    ),
    Policy(
        "wsrep_on",
        _is_off,
        "wsrep_on = OFF",
        "Galera has lost transactions that were committed, when nodes crashed: an order that has "
        "left the queue would be gone",
        "name a server that is no node of a Galera cluster: a primary, with semi-synchronous "
        "replicas if it is to outlive its machine",
        absent="OFF",
    ),
    Policy(
        "max_connections",
        lambda value: int(value or 0) >= CONNECTIONS_LEAST,
        "max_connections = 300",
        "a process that gets no connection answers 503",
        f"{_cnf('max_connections = 300')}: every process keeps up to 50",
        Grade.WARN,
    ),
)
BINLOG = _mysql(
    "sync_binlog",
    "1",
    "what was committed and is not in the log is on no replica after a crash",
    grade=Grade.WARN,
)

SEMI_SYNC = ("rpl_semi_sync_source_enabled", "rpl_semi_sync_master_enabled")
"""As MySQL 8.0.26 and newer calls it; as MariaDB and older ones do."""
SEMI_SYNC_WHY = (
    "a commit then waits until a replica has it, so that a failover of MySQL loses no row; without "
    "it the rows that are missing are written again from the ledger, which keeps a receipt of each"
)

LOSS = {
    Durability.EVERYSEC: (
        "by choice: a power cut or a crash of the kernel loses what was acknowledged in the last "
        "second, two where the disk is slow; a killed process loses nothing"
    )
}
"""What each choice but the first can lose."""


def ledger_rules(durability: Durability) -> Sequence[Policy]:
    """What a ledger must be, where `durability` was chosen for its acknowledgements.

    What was chosen is told as a warning, with what it can lose, and fails nothing.
    """
    if durability not in LOSS:
        return LEDGER
    return [_chosen(rule, durability) if rule.name == "appendfsync" else rule for rule in LEDGER]


def _chosen(rule: Policy, durability: Durability) -> Policy:
    line = f"appendfsync {durability}"
    return replace(
        rule,
        holds=lambda value: value in (Durability.ALWAYS, durability),
        line=line,
        why=LOSS[durability],
        cure=_conf(line),
    )


def has_binlog(variables: Mapping[str, str]) -> bool:
    """True where a binary log is written."""
    return _is_on(variables.get("log_bin", ""))


# Of a ledger that is to outlive its server --------------------------------------------------------

_SENTINELS_LEAST = 3
_LAG_S, _BEHIND_BYTES = 2, 1_048_576
"""A replica that was not heard of for longer, or lacks more, is told as one that lags."""
_WAITAOF_LEAST = (7, 2)


@dataclass(frozen=True)
class Judged:
    """A row of the doctor's: what was found, what it means, and the cure."""

    name: str
    found: str
    grade: Grade = Grade.OK
    cure: str = ""
    line: str = ""
    why: str = ""


def judge_replication(
    facts: Replication,
    config: Mapping[str, str],
    version: tuple[int, ...],
    durability: Durability,
    claims: ClaimSettings,
    *,
    in_cluster: bool = False,
) -> list[Judged]:
    """What holds of a ledger that has replicas, or is to have some; nothing of any other. Of a
    cluster's master `in_cluster` says so: who is cut off from the others takes no writes there,
    after its node time-out. Pure."""
    wanted = claims.confirm_replicas or (1 if durability is Durability.REPLICATED else 0)
    if in_cluster and not (facts.replicas or wanted):
        cure = "give it one (`redis-cli cluster replicate`): its lanes are away as long as it is"
        return [Judged("replicas", "none", Grade.WARN, cure)]
    if not (facts.replicas or facts.watches or wanted):
        return []
    rows = [*_judge_sentinels(facts)] if facts.watches else []
    rows.append(_judge_replicas(facts, wanted))
    if not in_cluster or _number(config, "min-replicas-to-write") > len(facts.replicas):
        rows.append(_judge_least(facts, config, wanted))
    rows.append(_judge_loss(facts, config, wanted, claims.confirm_on_disk))
    if wanted and claims.confirm_on_disk and version < _WAITAOF_LEAST:
        told = ".".join(map(str, version))
        cure = "upgrade it to Redis 7.2 or newer, or leave out FLASHSALE_CLAIM_CONFIRM_ON_DISK"
        rows.append(Judged("WAITAOF", f"not in {told}", Grade.FAIL, cure))
    return rows


def _judge_sentinels(facts: Replication) -> list[Judged]:
    answering = [watch for watch in facts.watches if watch is not None]
    named = len(facts.watches)
    found = f"{len(answering)} of {named} answer"
    if not answering:
        cure = f"start them; none that was asked knows a primary {facts.name}"
        return [Judged("Sentinels", found, Grade.FAIL, cure)]
    known = max(watch.others for watch in answering) + 1
    rows = [_judge_count(found, len(answering), named, known)]
    quorum, most = min(watch.quorum for watch in answering), known // 2 + 1
    cure = f"SENTINEL SET {facts.name} quorum {most} on each of them"
    why = "so many have to find the primary down before one of them asks the others for a failover"
    line = f"sentinel monitor {facts.name} … {most}"
    grade = Grade.FAIL if quorum > known else Grade.WARN if quorum < most else Grade.OK
    told = cure if grade is not Grade.OK else ""
    rows.append(Judged("quorum", f"{quorum} of {known}", grade, told, line, why))
    primaries = sorted({watch.primary for watch in answering})
    if len(primaries) > 1:
        cure = "wait for the failover to end; if it does not, see that the Sentinels reach another"
        rows.append(Judged("primary", " and ".join(primaries), Grade.WARN, cure))
    return rows


def _judge_count(found: str, answering: int, named: int, known: int) -> Judged:
    if 2 * answering <= known:
        cure = "start the others: fewer than most of them can agree on no failover"
        return Judged("Sentinels", found, Grade.FAIL, cure)
    if known < _SENTINELS_LEAST:
        cure = "run three, on three machines: of two none is most when the other is gone"
        return Judged("Sentinels", f"{found}, {known} in all", Grade.WARN, cure)
    if answering < named or known != named:
        cure = f"start those that are away, and name all {known} of them in the URL"
        return Judged("Sentinels", f"{found}, {known} in all", Grade.WARN, cure)
    return Judged("Sentinels", found)


def _judge_replicas(facts: Replication, wanted: int) -> Judged:
    count = len(facts.replicas)
    found = "; ".join(
        f"{each.place} lacks {each.behind_bytes:,} bytes, heard of {each.lag_s} s ago"
        for each in facts.replicas
    )
    if not count:
        cure = "start one: a failover has nobody to go to"
        return Judged("replicas", "none", Grade.FAIL, cure)
    if count < wanted:
        cure = f"start more, or ask fewer than {wanted} (FLASHSALE_CLAIM_CONFIRM_REPLICAS)"
        return Judged("replicas", found, Grade.FAIL, f"{cure}: nothing is sold until then")
    if any(each.lag_s > _LAG_S or each.behind_bytes > _BEHIND_BYTES for each in facts.replicas):
        cure = "look at its link and its disk: a failover to it loses what it lacks"
        return Judged("replicas", found, Grade.WARN, cure)
    return Judged("replicas", found)


def _judge_least(facts: Replication, config: Mapping[str, str], wanted: int) -> Judged:
    name, value = "min-replicas-to-write", _number(config, "min-replicas-to-write")
    lag_s = _number(config, "min-replicas-max-lag")
    least = max(1, wanted)
    line = f"min-replicas-to-write {least}"
    cure = f"CONFIG SET {line} on each node; and write it into their redis.conf"
    why = "a primary that its replicas cannot reach takes no orders, which it would forget later"
    if value > len(facts.replicas):
        cure = "start a replica: the ledger refuses every write until then"
        return Judged(name, str(value), Grade.FAIL, cure, line, why)
    if value < least or not lag_s:
        lost = (
            "its claims end as unknown, after their time-outs, in place of being refused"
            if wanted
            else "what it sells until it is demoted is lost"
        )
        return Judged(name, str(value), Grade.WARN, f"{cure}; without it, {lost}", line, why)
    return Judged(name, f"{value}, within {lag_s} s", Grade.OK, "", line, why)


def _judge_loss(
    facts: Replication, config: Mapping[str, str], wanted: int, on_disk: bool
) -> Judged:
    """What a failover can lose, as things are chosen."""
    if not wanted:
        bound = _number(config, "min-replicas-to-write") and _number(config, "min-replicas-max-lag")
        span = f", of {bound} s at most where the primary is cut off" if bound else ""
        cure = (
            "a failover loses what was acknowledged and is not yet on the replica"
            f"{span}; --durability replicated acknowledges what a replica has"
        )
        return Judged("failover", "loses what a replica lacks", Grade.WARN, cure)
    disk = " on their disks" if on_disk else ""
    why = f"an order is acknowledged when {wanted} of {len(facts.replicas)} replicas have it{disk}"
    if len(facts.replicas) > wanted:
        why += "; a failover takes the one that has most, of those that are reached"
    else:
        why += "; with one more, a replica that is away does not stop the sale"
    line = f"FLASHSALE_CLAIM_CONFIRM_REPLICAS={wanted}"
    return Judged("failover", "loses nothing acknowledged", Grade.OK, "", line, why)


def _number(config: Mapping[str, str], name: str) -> int:
    value = config.get(name, "0")
    return int(value) if value.isdigit() else 0
