"""The look-up: a batch of reads as one MGET; what it misses goes to the Bloom filters."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from flashsale.cache.bits import Id
from flashsale.cache.bloom import Bloom
from flashsale.errors import Indeterminate, Unavailable
from flashsale.storage.channel import Call, Channel, Plain


class Want(NamedTuple):
    """One entry to be read, behind its filter where it has one."""

    key: str
    entry_id: Id
    bloom: Bloom | None


class Lookup:
    """Reads entries over one channel; a key that many want is read once."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def send(self, wants: Sequence[Want]) -> Sequence[Any]:
        """Per want the entry, or what `bloom_read.lua` says, None, or trouble as a value.

        Most reads are hits, and a hit needs no filter: neither its hashes nor a script.
        """
        lane = {want.key: want for want in wants}
        (entries,) = await self._channel.run([Plain(("MGET", *lane))])
        if isinstance(entries, (Unavailable, Indeterminate)):
            return [entries] * len(wants)
        found = dict(zip(lane, entries, strict=True))
        missed = [lane[key] for key, entry in found.items() if entry is None and lane[key].bloom]
        if missed:
            found.update(await self._filtered(missed))
        return [found[want.key] for want in wants]

    async def _filtered(self, missed: Iterable[Want]) -> dict[str, Any]:
        """By key: the entry that came meanwhile, else what its filter says of the id."""
        lanes: dict[Bloom, dict[str, Id]] = {}
        for key, entry_id, bloom in missed:
            assert bloom is not None
            lanes.setdefault(bloom, {})[key] = entry_id
        calls: list[Call | Plain] = [
            bloom.read_call(list(lane), list(lane.values())) for bloom, lane in lanes.items()
        ]
        found: dict[str, Any] = {}
        replies = await self._channel.run(calls)
        for lane, reply in zip(lanes.values(), replies, strict=True):
            if isinstance(reply, (Unavailable, Indeterminate)):
                found.update(dict.fromkeys(lane, reply))
            else:
                found.update(zip(lane, reply, strict=True))
        return found
