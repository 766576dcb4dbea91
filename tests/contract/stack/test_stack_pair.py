"""A ledger that is a pair behind Sentinels: who is let in, and that all follow a failover."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from rig.until import eventually, until
from sqlalchemy import Engine, update

from flashsale import keys
from flashsale.doctor.findings import Diagnosis, examine
from flashsale.doctor.policies import Grade
from flashsale.errors import Indeterminate, Unavailable
from flashsale.model import Durability
from flashsale.primaries import Followed, NoPrimary, Primary, Sentinels, sentinel_client
from flashsale.seckill.permit import Behind, BooksComparison, read_ledger, read_marks
from flashsale.seckill.rebuild import Rebuild
from flashsale.stack import state
from flashsale.stack.sentinel import LedgerNode, LedgerPair, is_whole, last_known
from flashsale.stack.service import Account, Service
from flashsale.stack.settings import StackSettings
from flashsale.storage.channel import Channel
from flashsale.storage.mysql import transaction
from flashsale.storage.roles import async_client, call, sync_client
from flashsale.storage.tables import stream_position
from flashsale.store_urls import read_redis_url, server_url
from flashsale.verify.stores import open_redis

SETTINGS = StackSettings(ha=True, ha_down_after_ms=1_500, ledger_memory_mb=64)
NAME = "ledger"


class Running:
    """A pair that is up, and what is done to it."""

    def __init__(self, folder: Path, settings: StackSettings = SETTINGS) -> None:
        self.folder = folder
        self.pair = LedgerPair(folder, settings, lambda name: folder / "logs" / f"{name}.log")
        self.url = self.pair.url_for(Account.OWNER)
        self.sentinels = Sentinels(read_redis_url(self.url))

    @property
    def services(self) -> list[Service]:
        return [*self.pair.sentinels, *self.pair.nodes]

    def start(self) -> None:
        for services in (self.pair.nodes, self.pair.sentinels):
            for service in services:
                service.start()
            if services is self.pair.nodes:
                self.pair.await_link()

    def stop(self) -> None:
        for service in self.services:
            service.stop()

    def named(self) -> Primary | None:
        try:
            return self.sentinels.ask()
        except NoPrimary:
            return None

    def parted(self) -> tuple[LedgerNode, LedgerNode]:
        """The primary and the replica, as all Sentinels have it, the replica linked."""

        def agreed() -> tuple[LedgerNode, LedgerNode] | None:
            found = self.named()
            nodes = {node.port.number: node for node in self.pair.nodes}
            if found is None:
                return None
            primary = nodes.pop(found.port)
            (replica,) = nodes.values()
            try:
                with sync_client(primary.url) as client:
                    linked = client.role()[0] == "master" and client.wait(1, 100) == 1
            except RedisError:
                return None
            return (primary, replica) if linked else None

        found: tuple[LedgerNode, LedgerNode] = until(agreed, 60)
        return found

    def fail_over(self) -> None:
        """As an operator has the Sentinels do it; until the replica is the primary."""
        _, replica = self.parted()
        word = self.pair.words[""]
        first = self.pair.sentinels[0].port.number

        def is_asked() -> bool:
            try:
                with sentinel_client(f"redis://:{word}@127.0.0.1:{first}/0") as sentinel:
                    sentinel.execute_command("SENTINEL", "FAILOVER", NAME)
            except RedisError:  # it has just had one
                return False
            return True

        until(is_asked, 60)
        until(lambda: (p := self.named()) and p.port == replica.port.number, 60)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("pair"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


def test_nobody_is_let_in_without_a_password_and_each_account_does_its_own(
    running: Running,
) -> None:
    primary, replica = running.parted()
    pair = running.pair
    for port in (primary.port.number, replica.port.number, pair.sentinels[0].port.number):
        with sync_client(f"redis://127.0.0.1:{port}/0") as nobody, pytest.raises(RedisError):
            nobody.ping()
    for name, refused in {
        "link": ("GET", "k"),
        "sentinel": ("GET", "k"),
    }.items():
        url = f"redis://{name}:{pair.words[name]}@127.0.0.1:{primary.port.number}/0"
        with sync_client(url) as client, pytest.raises(NoPermissionError):
            client.execute_command(*refused)
    with sentinel_client(pair.sentinels[0].url) as reader:
        assert reader.ping()
        for word in ("FAILOVER", "RESET", "REMOVE"):
            with pytest.raises(NoPermissionError):
                reader.execute_command("SENTINEL", word, NAME)
    with sync_client(pair.url_for(Account.REPLICA)) as sells:
        assert sells.wait(1, 1000) == 1, "it may ask the replica"
        with pytest.raises(NoPermissionError):
            sells.flushall()
    with sync_client(pair.url_for(Account.WORKER)) as works:
        assert works.wait(1, 1000) == 1
    secrets = [*pair.words.values(), *pair.passwords.values()]
    for service in running.services:
        assert service.process
        told = Path(f"/proc/{service.process.pid}/cmdline").read_text()
        assert not any(secret in told for secret in secrets if secret)
    with (
        pytest.raises(AuthenticationError),
        sync_client(primary.url.replace(pair.passwords[Account.OWNER], "wrong")) as client,
    ):
        client.ping()


def test_each_answers_for_itself(running: Running) -> None:
    running.parted()
    for service in running.services:
        child = state.ChildState(
            *(service.name, service.kind, 1, service.port.number, service.url, "", 0)
        )
        assert state._answers(child), service.name


def test_a_pair_is_whole_while_all_are_of_one_mind_and_the_replica_is_linked(
    running: Running,
) -> None:
    _, replica = running.parted()
    place, urls = read_redis_url(running.url), [node.url for node in running.pair.nodes]
    until(lambda: is_whole(place, urls), 20)
    with sync_client(replica.url) as client, sync_client(running.url) as primary:
        word = client.config_get("masterauth")["masterauth"]
        client.config_set("masterauth", "another")
        primary.client_kill_filter(_type="replica")
        until(lambda: not is_whole(place, urls), 20)
        client.config_set("masterauth", word)
        until(lambda: is_whole(place, urls), 20)
        assert is_whole(place, urls[::-1])
        client.replicaof("NO", "ONE")
        assert not is_whole(place, urls), "there are two primaries"
        client.replicaof("127.0.0.1", str(running.sentinels.ask().port))
    running.parted()


def test_a_primary_is_reached_where_its_address_says(running: Running) -> None:
    primary, replica = running.parted()
    place = read_redis_url(running.url)
    told = {f"127.0.0.1:{primary.port.number}": f"127.0.0.1:{replica.port.number}"}
    reached = Sentinels(place, told).ask()
    assert (reached.host, reached.port) == ("127.0.0.1", replica.port.number)
    assert reached.term == running.sentinels.ask().term
    other = Sentinels(place, {"127.0.0.1:1": "127.0.0.1:2"})
    assert other.ask() == running.sentinels.ask()


@pytest.mark.anyio
async def test_whoever_has_a_client_follows_a_failover(running: Running) -> None:
    primary, replica = running.parted()
    channel = Channel(running.url, connections_max=1, timeout_s=2.0)
    with sync_client(running.url) as client:
        followed = Followed(client)
        before = followed.term()
        assert before is not None
        assert await channel.ask("SET", "k", "old") == "OK"
        assert client.get("k") == "old"
        running.fail_over()

        async def is_written() -> bool:
            """The old one takes writes until it is told, and forgets them then."""
            try:
                await channel.ask("SET", "k", "new")
            except (Unavailable, Indeterminate):
                return False
            channel.leave()
            with sync_client(replica.url) as promoted:
                return promoted.get("k") == "new"

        await eventually(is_written, 30)
        after = followed.term()
        assert after is not None
        assert after > before
        assert client.get("k") == "new", "its connection was made anew"
        with open_redis(running.url, 2) as judge:
            assert judge.get("k") == b"new"
        async with async_client(running.url) as other:
            assert await other.get("k") == "new"
    await channel.aclose()
    with sync_client(primary.url) as old:  # as the Sentinels do, in ten seconds
        old.replicaof("127.0.0.1", str(replica.port.number))
    assert running.parted() == (replica, primary)


def test_a_server_that_is_no_primary_is_refused_whatever_sentinels_say(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, replica = running.parted()
    told = Primary("127.0.0.1", replica.port.number, 1)
    monkeypatch.setattr(Sentinels, "ask", lambda self: told)
    with sync_client(running.url) as client, pytest.raises(Unavailable, match="is no primary"):
        call(client.get, "k")


def test_a_promoted_ledger_is_compared_anew_and_an_old_primary_has_no_say(
    running: Running, pool: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sync_client(running.url) as client:
        client.flushall()
    primary, _ = running.parted()
    with sync_client(running.url) as client, sync_client(primary.url) as old:
        books = BooksComparison(client, pool)
        first = books.permit()
        assert read_ledger(old).permit == first
        running.fail_over()
        until(lambda: (p := _permit(books)) and p != first, 30)
        with transaction(pool) as connection:
            term = read_marks(connection).term
        assert term == running.sentinels.ask().term
        second = books.permit()
        # Out of the others' sight it has not heard of it, and goes on.
        monkeypatch.setattr(
            Sentinels, "ask", lambda self: Primary("127.0.0.1", primary.port.number, term - 1)
        )
        old.replicaof("NO", "ONE")
        old.set(keys.PERMIT, first)
        with pytest.raises(Behind, match=f"of term {term - 1}; one of term {term} has sold since"):
            books.confirm()
        assert old.get(keys.PERMIT) is None, "it is taken away"
        monkeypatch.undo()
        assert books.confirm() == second
        old.replicaof("127.0.0.1", str(running.named().port))  # type: ignore[union-attr]
    running.parted()


def _permit(books: BooksComparison) -> str:
    try:
        return books.confirm()
    except Unavailable:
        return ""


def test_sentinels_that_count_from_nought_again_are_believed_after_a_rebuild(
    running: Running, pool: Engine
) -> None:
    with sync_client(running.url) as client:
        client.flushall()
        books = BooksComparison(client, pool)
        books.permit()
        with transaction(pool) as connection:
            connection.execute(
                update(stream_position)
                .where(stream_position.c.stream == keys.PERMIT)
                .values(last_seq=999)
            )
        with pytest.raises(Behind, match="one of term 999 has sold since"):
            books.confirm()
        Rebuild(books).apply()
        assert books.confirm()
        with transaction(pool) as connection:
            assert read_marks(connection).term == running.sentinels.ask().term


@pytest.mark.slow
def test_a_dead_primary_is_started_again_as_a_replica(running: Running) -> None:
    primary, replica = running.parted()
    assert primary.process
    os.kill(primary.process.pid, signal.SIGKILL)
    primary.process.stop(10)
    primary.sweep()
    until(lambda: (p := running.named()) and p.port == replica.port.number, 60)
    primary.start()
    assert running.parted() == (replica, primary)
    name, term = last_known(running.folder)
    assert name == replica.name
    assert term == running.sentinels.ask().term


def test_the_doctor_says_what_of_it_holds(running: Running) -> None:
    running.parted()

    def row(name: str, durability: Durability) -> Diagnosis:
        found = examine(running.url, None, None, durability)
        return next(finding for finding in found if finding.name == name)

    assert row("Sentinels", Durability.ALWAYS).found == "3 of 3 answer"
    assert row("quorum", Durability.ALWAYS).found == "2 of 3"
    assert "heard of" in row("replicas", Durability.ALWAYS).found
    assert row("failover", Durability.ALWAYS).grade is Grade.WARN
    assert row("failover", Durability.REPLICATED).grade is Grade.OK
    plain = server_url(read_redis_url(running.url), "127.0.0.1", running.sentinels.ask().port)
    of_plain = {finding.name for finding in examine(plain, None, None)}
    assert {"replicas", "failover"} <= of_plain, "also without Sentinels"
    assert "Sentinels" not in of_plain


@pytest.mark.slow
def test_a_pair_that_was_stopped_goes_on_where_it_was(running: Running) -> None:
    _, replica = running.parted()
    with sync_client(running.url) as client:
        client.set("kept", "yes")
        assert client.wait(1, 1000) == 1
    running.fail_over()
    term = running.sentinels.ask().term
    running.stop()
    again = Running(running.folder)
    try:
        again.start()
        primary, _ = again.parted()
        assert primary.name == replica.name
        assert again.sentinels.ask().term == term
        with sync_client(again.url) as client:
            assert client.get("kept") == "yes"
    finally:
        again.stop()
