"""The settings of Redis and MySQL on which the sale's promises rest: each with the line that sets
it, why, what to do where it is otherwise, and what that means.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from flashsale.model import Durability

CONNECTIONS_LEAST = 200


class Grade(StrEnum):
    """What a finding means for the promises of the sale."""

    OK = "ok"
    WARN = "warn"  # slower, or less than it could be
    FAIL = "fail"  # a promise would break


@dataclass(frozen=True, slots=True)
class Rule:
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


def _redis(name: str, wanted: str, why: str, grade: Grade = Grade.FAIL) -> Rule:
    line = f"{name} {wanted}"
    return Rule(name, wanted.__eq__, line, why, _conf(line), grade)


def _mysql(
    name: str,
    wanted: str,
    why: str,
    holds: Callable[[str], bool] | None = None,
    grade: Grade = Grade.FAIL,
    absent: str = "",
) -> Rule:
    line = f"{name} = {wanted}"
    return Rule(name, holds or wanted.__eq__, line, why, _cnf(line), grade, absent)


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
    Rule(
        "maxmemory",
        _is_not("0"),
        "maxmemory 256mb",
        "a cache without a limit swaps before it evicts",
        f"{_conf('maxmemory 256mb')}, so that it evicts before the machine swaps",
        Grade.WARN,
    ),
    Rule(
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
    Rule(
        "read_only",
        _is_off,
        "read_only = OFF",
        "rows are written to the primary, and read where they are written",
        "name the primary, not a replica of it",
    ),
    Rule(
        "wsrep_on",
        _is_off,
        "wsrep_on = OFF",
        "Galera has lost transactions that were committed, when nodes crashed: an order that has "
        "left the queue would be gone",
        "name a server that is no node of a Galera cluster: a primary, with semi-synchronous "
        "replicas if it is to outlive its machine",
        absent="OFF",
    ),
    Rule(
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


def ledger_rules(durability: Durability) -> Sequence[Rule]:
    """What a ledger must be, where `durability` was chosen for its acknowledgements.

    What was chosen is told as a warning, with what it can lose, and fails nothing.
    """
    if durability not in LOSS:
        return LEDGER
    return [_chosen(rule, durability) if rule.name == "appendfsync" else rule for rule in LEDGER]


def _chosen(rule: Rule, durability: Durability) -> Rule:
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
