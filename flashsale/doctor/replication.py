"""Whether a ledger outlives its server: its Sentinels, its replicas, what a failover can lose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from flashsale.doctor.policies import Grade
from flashsale.model import Durability
from flashsale.sentinels import sentinel_client
from flashsale.settings import ClaimSettings
from flashsale.store_urls import StoreUrl, sentinel_url

_SENTINELS_LEAST = 3
_LAG_S, _BEHIND_BYTES = 2, 1_048_576
"""A replica that was not heard of for longer, or lacks more, is told as one that lags."""
_WAITAOF_LEAST = (7, 2)


@dataclass(frozen=True)
class Replica:
    """One that is connected, as its primary sees it."""

    place: str
    behind_bytes: int
    lag_s: int


@dataclass(frozen=True)
class Watch:
    """What one Sentinel says of the primary; None in place of it where it does not answer."""

    primary: str
    quorum: int
    others: int  # Sentinels that it knows beside itself


@dataclass(frozen=True)
class Replication:
    """A ledger's replicas and Sentinels; `watches` is empty where the URL names none."""

    replicas: Sequence[Replica] = ()
    watches: Sequence[Watch | None] = ()
    name: str = field(default="")  # what the Sentinels call it


@dataclass(frozen=True)
class Judged:
    """A row of the doctor's: what was found, what it means, and the cure."""

    name: str
    found: str
    grade: Grade = Grade.OK
    cure: str = ""
    line: str = ""
    why: str = ""


def replicas_in(info: Mapping[str, Any]) -> list[Replica]:
    """The replicas that a primary's INFO names. Pure."""
    offset = int(info.get("master_repl_offset", 0))
    found = [info.get(f"slave{n}") for n in range(int(info.get("connected_slaves", 0)))]
    return [
        Replica(
            f"{each['ip']}:{each['port']}",
            max(0, offset - int(each.get("offset", 0))),
            int(each.get("lag", 0)),
        )
        for each in found
        if isinstance(each, Mapping) and each.get("state") == "online"
    ]


def ask_sentinels(place: StoreUrl) -> list[Watch | None]:
    """What each Sentinel that the URL names says, one that does not answer as None."""
    return [_watch(sentinel_url(place, *each), place.primary) for each in place.sentinels]


def _watch(url: str, name: str) -> Watch | None:
    try:
        with sentinel_client(url) as sentinel:
            masters = sentinel.sentinel_masters()
    except (RedisError, OSError):
        return None
    each = masters.values() if isinstance(masters, Mapping) else masters
    found = next((master for master in each if master["name"] == name), None)
    if found is None:
        return None
    address = f"{found['ip']}:{found['port']}"
    return Watch(address, int(found["quorum"]), int(found["num-other-sentinels"]))


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
