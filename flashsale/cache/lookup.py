"""The look-up: a batch of reads as one MGET, and one script for each Bloom filter among them."""

from collections.abc import Sequence
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
        """Per want the entry, or what `bloom_read.lua` says, None, or trouble as a value."""
        lanes: dict[Bloom | None, dict[str, Id]] = {}
        for key, entry_id, bloom in wants:
            lanes.setdefault(bloom, {})[key] = entry_id
        replies = await self._channel.run([_call(bloom, lane) for bloom, lane in lanes.items()])
        found: dict[str, Any] = {}
        for lane, reply in zip(lanes.values(), replies, strict=True):
            if isinstance(reply, (Unavailable, Indeterminate)):
                found.update(dict.fromkeys(lane, reply))
            else:
                found.update(zip(lane, reply, strict=True))
        return [found[want.key] for want in wants]


def _call(bloom: Bloom | None, lane: dict[str, Id]) -> Call | Plain:
    if bloom is None:
        return Plain(("MGET", *lane))
    return bloom.read_call(list(lane), list(lane.values()))
