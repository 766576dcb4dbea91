"""A ledger that outlives its server: what the doctor says of each combination, and whom a stack
takes for the primary when it is started again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flashsale.doctor.facts import (
    ClusterFacts,
    MySQLFacts,
    Node,
    NodeFacts,
    RedisFacts,
    ReplicaFacts,
    Replication,
    Watch,
    nodes_in,
    replicas_in,
)
from flashsale.doctor.findings import Diagnosis, failures, judge_cluster, judge_mysql, judge_redis
from flashsale.doctor.policies import Grade
from flashsale.errors import UsageError
from flashsale.model import Durability
from flashsale.settings import ClaimSettings
from flashsale.stack.cluster import LedgerCluster, by_relays
from flashsale.stack.redis import RedisRole
from flashsale.stack.sentinel import LedgerPair, followed_last
from flashsale.stack.service import Account
from flashsale.stack.settings import ExternalStores, StackSettings, stack_settings
from flashsale.store_urls import at_port

WATCH = Watch("10.0.0.1:6379", quorum=2, others=2)
TWO = Replication(
    (ReplicaFacts("10.0.0.2:6379", 0, 0), ReplicaFacts("10.0.0.3:6379", 12, 1)),
    (WATCH,) * 3,
    "sale",
)
LEDGER = RedisFacts(
    version="7.2.4",
    role="master",
    clustered=False,
    config={
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "maxmemory-policy": "noeviction",
        "min-replicas-to-write": "1",
        "min-replicas-max-lag": "10",
    },
    replication=TWO,
)


def judged(
    replication: Replication = TWO,
    durability: Durability = Durability.REPLICATED,
    version: str = "7.2.4",
    *,
    least: str = "1",
    **claims: Any,
) -> dict[str, Diagnosis]:
    """The rows by name, of a ledger and of what is asked of its replicas."""
    assert LEDGER.config is not None
    config = {**LEDGER.config, "min-replicas-to-write": least}
    facts = replace(LEDGER, replication=replication, config=config, version=version)
    settings = ClaimSettings(**claims)
    found = judge_redis(RedisRole.LEDGER, facts, durability=durability, claims=settings)
    return {finding.name: finding for finding in found}


def test_three_sentinels_and_two_replicas_of_which_one_confirms_lose_nothing() -> None:
    rows = judged()
    assert [row.name for row in rows.values() if row.grade is not Grade.OK] == []
    assert rows["Sentinels"].found == "3 of 3 answer"
    assert rows["quorum"].found == "2 of 3"
    assert rows["failover"].found == "loses nothing acknowledged"
    assert "10.0.0.3:6379 lacks 12 bytes, heard of 1 s ago" in rows["replicas"].found


def test_of_a_ledger_alone_nothing_is_said() -> None:
    assert not {"failover", "replicas", "Sentinels"} & set(judged(Replication(), Durability.ALWAYS))


@pytest.mark.parametrize(
    ("watches", "name", "grade", "cure"),
    [
        ((None, None, None), "Sentinels", Grade.FAIL, "start them"),
        ((WATCH, None, None), "Sentinels", Grade.FAIL, "start the others"),
        ((WATCH, WATCH, None), "Sentinels", Grade.WARN, "start those that are away"),
        ((WATCH, WATCH), "Sentinels", Grade.WARN, "name all 3 of them"),
        ((replace(WATCH, others=1),) * 2, "Sentinels", Grade.WARN, "run three"),
        ((replace(WATCH, quorum=1),) * 3, "quorum", Grade.WARN, "SENTINEL SET sale quorum 2"),
        ((replace(WATCH, quorum=4),) * 3, "quorum", Grade.FAIL, "SENTINEL SET sale quorum 2"),
        (
            (WATCH, WATCH, replace(WATCH, primary="10.0.0.2:6379")),
            "primary",
            Grade.WARN,
            "wait for the failover",
        ),
    ],
)
def test_each_thing_that_is_wrong_with_sentinels(
    watches: tuple[Watch | None, ...], name: str, grade: Grade, cure: str
) -> None:
    row = judged(replace(TWO, watches=watches))[name]
    assert row.grade is grade
    assert cure in row.cure


@pytest.mark.parametrize(
    ("replicas", "grade", "cure"),
    [
        ((), Grade.FAIL, "a failover has nobody to go to"),
        (TWO.replicas[:1], Grade.FAIL, "ask fewer than 2"),
        ((ReplicaFacts("a:1", 0, 3), ReplicaFacts("b:1", 0, 0)), Grade.WARN, "loses what it lacks"),
        (
            (ReplicaFacts("a:1", 2_000_000, 0), ReplicaFacts("b:1", 0, 0)),
            Grade.WARN,
            "loses what it lacks",
        ),
    ],
)
def test_each_thing_that_is_wrong_with_replicas(
    replicas: tuple[ReplicaFacts, ...], grade: Grade, cure: str
) -> None:
    row = judged(replace(TWO, replicas=replicas), confirm_replicas=2, least="2")["replicas"]
    assert row.grade is grade
    assert cure in row.cure


@pytest.mark.parametrize(
    ("durability", "least", "grade", "told"),
    [
        (Durability.ALWAYS, "0", Grade.WARN, "what it sells until it is demoted is lost"),
        (Durability.REPLICATED, "0", Grade.WARN, "its claims end as unknown"),
        (Durability.ALWAYS, "3", Grade.FAIL, "the ledger refuses every write"),
        (Durability.ALWAYS, "1", Grade.OK, ""),
    ],
)
def test_what_an_isolated_primary_does(
    durability: Durability, least: str, grade: Grade, told: str
) -> None:
    row = judged(durability=durability, least=least)["min-replicas-to-write"]
    assert row.grade is grade
    assert told in row.cure


def test_what_a_failover_loses_is_told_of_each_choice() -> None:
    for durability in (Durability.ALWAYS, Durability.EVERYSEC):
        row = judged(durability=durability)["failover"]
        assert row.grade is Grade.WARN
        assert "of 10 s at most where the primary is cut off" in row.cure
        assert "--durability replicated" in row.cure
    assert "of 10 s" not in judged(durability=Durability.ALWAYS, least="0")["failover"].cure
    assert "the one that has most" in judged()["failover"].why
    one = replace(TWO, replicas=TWO.replicas[:1])
    assert "with one more" in judged(one)["failover"].why


def test_disks_can_be_asked_from_7_2_on() -> None:
    assert "WAITAOF" not in judged(confirm_on_disk=True)
    row = judged(version="7.0.15", confirm_on_disk=True)["WAITAOF"]
    assert (row.grade, row.found) == (Grade.FAIL, "not in 7.0")


def test_replicas_are_those_that_are_online() -> None:
    info = {
        "connected_slaves": 3,
        "master_repl_offset": 100,
        "slave0": {"ip": "a", "port": 1, "state": "online", "offset": 90, "lag": 1},
        "slave1": {"ip": "b", "port": 2, "state": "wait_bgsave", "offset": 0, "lag": 0},
        "slave2": {"ip": "c", "port": 3, "state": "online", "offset": 100, "lag": 0},
    }
    assert replicas_in(info) == [ReplicaFacts("a:1", 10, 1), ReplicaFacts("c:3", 0, 0)]
    assert replicas_in({"connected_slaves": 0}) == []


# A cluster ---------------------------------------------------------------------------------------

KEEPS = {**(LEDGER.config or {}), "min-replicas-to-write": "0"}
NODE = replace(
    LEDGER,
    clustered=True,
    config={**KEEPS, "cluster-require-full-coverage": "no"},
    replication=Replication((ReplicaFacts("10.0.0.9:6379", 0, 0),)),
)
MASTERS = [Node(f"m{n}", "10.0.0.1", 7000 + n, lanes=(2 * n, 2 * n + 1)) for n in range(3)]
COPIES = [Node(f"r{n}", "10.0.0.1", 7003 + n, f"m{n}") for n in range(3)]
SIX = ClusterFacts(
    "ok",
    [
        *(NodeFacts(node, NODE) for node in MASTERS),
        *(NodeFacts(node, replace(NODE, role="slave")) for node in COPIES),
    ],
)


def of_cluster(
    facts: ClusterFacts = SIX, durability: Durability = Durability.REPLICATED
) -> dict[tuple[str, str], Diagnosis]:
    """The rows by subject and name."""
    found = judge_cluster(facts, durability, ClaimSettings())
    return {(finding.subject, finding.name): finding for finding in found}


def with_node(number: int, **changed: Any) -> ClusterFacts:
    """The same cluster, but one of its nodes says something else."""
    nodes = list(SIX.nodes)
    nodes[number] = replace(nodes[number], **changed)
    return replace(SIX, nodes=nodes)


def test_three_masters_with_a_replica_each_lose_nothing() -> None:
    rows = of_cluster()
    assert [row for row in rows.values() if row.grade is not Grade.OK] == []
    assert rows["ledger", "lanes"].found == "each has one of 3 masters, which have 3 replicas"
    assert rows["ledger 10.0.0.1:7001", "role"].found == "master of lane2i, lane3"
    assert rows["ledger 10.0.0.1:7004", "role"].found == "replica of 10.0.0.1:7001"
    assert rows["ledger 10.0.0.1:7000", "failover"].found == "loses nothing acknowledged"
    assert ("ledger 10.0.0.1:7003", "failover") not in rows
    asynchronous = of_cluster(durability=Durability.ALWAYS)
    assert asynchronous["ledger 10.0.0.1:7000", "failover"].grade is Grade.WARN


ALONE = replace(NODE, replication=Replication())
FORGETS = replace(NODE, config={**(NODE.config or {}), "appendfsync": "no"})
ALL_OR_NONE = replace(NODE, config={**(NODE.config or {}), "cluster-require-full-coverage": "yes"})


@pytest.mark.parametrize(
    ("facts", "subject", "name", "grade", "told"),
    [
        (replace(SIX, state="fail"), "ledger", "cluster", Grade.FAIL, "cluster info"),
        (
            with_node(1, node=replace(MASTERS[1], lanes=(2,))),
            "ledger",
            "lanes",
            Grade.FAIL,
            "slots",
        ),
        (with_node(2, ahead_ms=251.0), "ledger", "clocks", Grade.FAIL, "within 250 ms"),
        (with_node(0, says=None), "ledger 10.0.0.1:7000", "answers", Grade.FAIL, "start it"),
        (with_node(4, says=None), "ledger 10.0.0.1:7004", "answers", Grade.WARN, "start it"),
        (with_node(0, says=FORGETS), "ledger 10.0.0.1:7000", "appendfsync", Grade.FAIL, "always"),
        (with_node(5, says=FORGETS), "ledger 10.0.0.1:7005", "appendfsync", Grade.FAIL, "always"),
        (
            with_node(2, says=ALL_OR_NONE),
            "ledger 10.0.0.1:7002",
            "cluster-require-full-coverage",
            Grade.WARN,
            "all lanes stop",
        ),
        (with_node(1, says=ALONE), "ledger 10.0.0.1:7001", "replicas", Grade.FAIL, "start one"),
    ],
)
def test_what_is_wrong_with_a_cluster_names_the_node(
    facts: ClusterFacts, subject: str, name: str, grade: Grade, told: str
) -> None:
    wrong = [row for row in of_cluster(facts).values() if row.grade is not Grade.OK]
    row = of_cluster(facts)[subject, name]
    assert row in wrong
    assert (row.grade, told in row.cure) == (grade, True), row


def test_a_master_without_a_replica_is_told_where_none_is_asked() -> None:
    rows = of_cluster(with_node(1, says=ALONE), Durability.ALWAYS)
    assert rows["ledger 10.0.0.1:7001", "replicas"].grade is Grade.WARN


def test_nodes_are_read_as_another_tells_them() -> None:
    told = {
        "10.0.0.1:7003": {"node_id": "r", "master_id": "m", "slots": []},
        "10.0.0.1:7000": {"node_id": "m", "master_id": "-", "slots": [["0", "8191"], ["9000"]]},
        "10.0.0.1:7001": {"node_id": "n", "master_id": "-", "slots": [["8192", "16383"]]},
    }
    first, second, copy = nodes_in(told)
    assert (first.place, second.place, copy.master) == ("10.0.0.1:7000", "10.0.0.1:7001", "m")
    assert sorted(first.lanes + second.lanes) == list(range(6))
    assert len(first.lanes) == 3


# MySQL -------------------------------------------------------------------------------------------

MYSQL = MySQLFacts("8.0.36", "utf8mb4", {"log_bin": "ON", "sync_binlog": "1"})


def of_mysql(**variables: str) -> dict[str, Diagnosis]:
    found = judge_mysql(replace(MYSQL, variables={**MYSQL.variables, **variables}))
    return {finding.name: finding for finding in found}


def test_galera_is_refused() -> None:
    assert of_mysql()["wsrep_on"].grade is Grade.OK
    assert of_mysql(wsrep_on="OFF")["wsrep_on"].grade is Grade.OK
    row = of_mysql(wsrep_on="ON")["wsrep_on"]
    assert row in failures([row])
    assert "lost transactions that were committed" in row.why
    assert "semi-synchronous" in row.cure


def test_semi_synchronous_replication_is_explained_where_there_is_a_log_to_replicate() -> None:
    name = "semi-synchronous replication"
    off = of_mysql()[name]
    assert (off.grade, off.found) == (Grade.OK, "not installed")
    assert "loses no row" in off.why
    on = {"rpl_semi_sync_source_enabled": "ON"}
    assert of_mysql(**on)[name].grade is Grade.OK
    late = of_mysql(**on, rpl_semi_sync_source_wait_point="AFTER_COMMIT")[name]
    assert late.grade is Grade.WARN
    assert "rpl_semi_sync_source_wait_point = AFTER_SYNC" in late.cure
    of_maria = of_mysql(rpl_semi_sync_master_enabled="OFF")[name]
    assert of_maria.line == "rpl_semi_sync_master_enabled = ON"
    assert name not in of_mysql(log_bin="OFF")


# The private pair --------------------------------------------------------------------------------


def conf(port: int, term: int) -> str:
    return (
        f"port 1\nsentinel monitor ledger 127.0.0.1 {port} 2\nsentinel config-epoch ledger {term}\n"
    )


def test_the_primary_of_the_last_run_is_whom_most_terms_were_counted_for() -> None:
    ports = {"ledger": 7000, "ledger-2": 7001}
    assert followed_last([], ports) == ("ledger", 0)
    assert followed_last([conf(7000, 0), conf(7000, 0)], ports) == ("ledger", 0)
    assert followed_last([conf(7000, 3), conf(7001, 4), conf(7001, 4)], ports) == ("ledger-2", 4)
    assert followed_last([conf(7001, 4)], {}) == ("ledger", 4), "nobody says who had the port"
    assert followed_last(["torn"], ports) == ("ledger", 0)


@pytest.mark.parametrize(
    ("given", "ledger_url", "told"),
    [
        ({"ha": True}, "redis://h/0", "leave out --ledger-url"),
        ({"cluster": True}, "redis://h/0", "leave --ledger-url out"),
        ({"cluster": True, "ha": True}, None, "a cluster has replicas of its own"),
        ({"ha": True}, "redis+cluster://h", "a cluster has replicas of its own"),
        ({"cluster": True, "links": {"r1->ledger": 1}}, None, "name r1->ledger-1, r1->ledger-2"),
        ({"links": {"r1->ledger": 1}}, "redis+cluster://h", "a link for each node"),
        ({"links": {"r1->ledger-1": 1}}, "redis+cluster://h", "none to nodes of others"),
        ({"durability": "replicated"}, None, "add --ha or --cluster"),
    ],
)
def test_a_choice_that_this_stack_cannot_keep(
    given: dict[str, Any], ledger_url: str | None, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        stack_settings(ExternalStores(ledger_url), **given)


@pytest.mark.parametrize(
    ("given", "ledger_url"),
    [
        ({}, None),
        ({"ha": True}, None),
        ({"ha": True, "durability": "replicated"}, None),
        ({"cluster": True, "durability": "replicated"}, None),
        ({"durability": "replicated"}, "redis://h/0"),
        ({"durability": "replicated"}, "redis+cluster://h"),
        ({"cluster": True}, "redis+cluster://h"),
        ({"cluster": True, "links": {"r1->ledger-1": 1, "r1->mysql": 2}}, None),
    ],
)
def test_a_choice_that_it_can(given: dict[str, Any], ledger_url: str | None) -> None:
    stack_settings(ExternalStores(ledger_url), **given)


def test_a_ledger_in_lanes_is_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not stack_settings(ExternalStores()).cluster
    monkeypatch.setenv("FLASHSALE_LEDGER_LAYOUT", "cluster")
    assert stack_settings(ExternalStores(), cluster=None).cluster
    with pytest.raises(UsageError, match="a cluster has replicas of its own"):
        stack_settings(ExternalStores(), ha=True)


def test_who_has_a_relay_to_a_node_reaches_it_by_that_alone(tmp_path: Path) -> None:
    made = LedgerCluster(tmp_path, lambda name: tmp_path / name, masters=2, replicas=0)
    first, second = (f"127.0.0.1:{node.port.number}" for node in made.nodes)
    url = made.url_for(Account.REPLICA)
    links = {"r1->ledger-1": 11, "r1->ledger-2": 12, "r2->ledger-2": 22, "r1->mysql": 9}
    told = by_relays(url, made.nodes, "r1", links)
    assert json.loads(told["FLASHSALE_LEDGER_ADDRESSES"]) == {
        first: "127.0.0.1:11",
        second: "127.0.0.1:12",
    }
    account = url.rpartition("@")[0]
    assert told["FLASHSALE_LEDGER_URL"] == f"{account}@127.0.0.1:11,127.0.0.1:12"
    other = by_relays(url, made.nodes, "r2", links)
    assert json.loads(other["FLASHSALE_LEDGER_ADDRESSES"]) == {second: "127.0.0.1:22"}
    assert other["FLASHSALE_LEDGER_URL"] == f"{account}@{first},127.0.0.1:22"
    assert by_relays(url, made.nodes, "c1", links) == {}
    for node in made.nodes:
        node.stop()


def test_a_relay_to_whom_sentinels_name_is_told_by_the_nodes_place(tmp_path: Path) -> None:
    """Where the Sentinels are is told as it is; those of somebody else have no relay."""
    settings = StackSettings.load(ha=True, links={"r1->ledger": 11, "r1->ledger-2": 12})
    pair = LedgerPair(tmp_path, settings, lambda name: tmp_path / name)
    first, second = (f"127.0.0.1:{node.port.number}" for node in pair.nodes)
    url = pair.url_for(Account.REPLICA)
    told = by_relays(url, pair.nodes, "r1", settings.links)
    assert told["FLASHSALE_LEDGER_URL"] == url
    assert json.loads(told["FLASHSALE_LEDGER_ADDRESSES"]) == {
        first: "127.0.0.1:11",
        second: "127.0.0.1:12",
    }
    assert by_relays(url, pair.nodes, "c1", settings.links) == {}
    for service in (*pair.nodes, *pair.sentinels):
        service.stop()
    with pytest.raises(UsageError, match="behind Sentinels has none"):
        at_port("redis+sentinel://h/sale", 4711)
