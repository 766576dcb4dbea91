"""A Bloom filter in the cache: which ids cannot exist; and its arithmetic: sizes, the two hashes of
an id, a bitmap as Redis lays it out.

Two generations, so that a rebuild has no window: from its beginning ids are added to both, and one
script switches. A filter that is absent or damaged says "unknown", never "no".

Sizes after Bloom (1970); double hashing after Kirsch and Mitzenmacher (2006): bit i of an id is
(first + i × second) mod bits. Lua computes the same in doubles, hence 40 bits a hash.
"""

import asyncio
import math
import secrets
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from xxhash import xxh3_128_intdigest

from flashsale import keys
from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import Call, script
from flashsale.settings import BloomSettings

BITS_MAX = 2**32
"""A Redis string holds 512 MB."""

_MASK = 2**40 - 1
_HASHES_MAX = 24

Id = int | str


def hashes_of(entry_id: Id) -> tuple[int, int]:
    """The two hashes of an id, below 2^40; the second is odd, so that it is never 0."""
    digest = xxh3_128_intdigest(str(entry_id).encode())
    return digest & _MASK, (digest >> 64) & _MASK | 1


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a filter is: ids it is made for, bits, and hashes an id."""

    capacity: int
    bits: int
    hashes: int

    @classmethod
    def sized(cls, capacity: int, false_positives: float) -> "Shape":
        """The smallest filter that holds `capacity` ids at that share of false positives."""
        bits = math.ceil(-capacity * math.log(false_positives) / math.log(2) ** 2)
        bits = min(BITS_MAX, 8 * math.ceil(bits / 8))
        hashes = round(bits / capacity * math.log(2))
        return cls(capacity, bits, min(_HASHES_MAX, max(1, hashes)))

    def places(self, entry_id: Id) -> list[int]:
        """The bits of an id."""
        first, second = hashes_of(entry_id)
        return [(first + i * second) % self.bits for i in range(self.hashes)]

    def estimated_ids(self, fill: float) -> float:
        """How many ids fill that share of the bits (Swamidass and Baldi, 2007)."""
        if fill >= 1:
            return math.inf
        return -self.bits / self.hashes * math.log1p(-fill)

    def false_positives(self, fill: float) -> float:
        """The share of unknown ids that pass, with that share of the bits set."""
        return fill**self.hashes


class Bitmap:
    """A filter's bits in memory, byte for byte as SETBIT would have set them."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.data = bytearray(shape.bits // 8)

    def __repr__(self) -> str:
        return f"<Bitmap {self.shape}>"

    def add(self, ids: Iterable[Id]) -> int:
        """Add ids; returns how many they were."""
        data, bits = self.data, self.shape.bits
        rounds = range(self.shape.hashes)
        count = 0
        for entry_id in ids:
            digest = xxh3_128_intdigest(str(entry_id).encode())
            place, step = (digest & _MASK) % bits, ((digest >> 64) & _MASK | 1) % bits
            for _ in rounds:
                data[place >> 3] |= 128 >> (place & 7)  # Redis counts from the highest bit
                place = (place + step) % bits
            count += 1
        return count

    def __contains__(self, entry_id: Id) -> bool:
        return all(self.data[bit >> 3] & (128 >> (bit & 7)) for bit in self.shape.places(entry_id))


# In the cache ------------------------------------------------------------------------------------

log = structlog.get_logger(__name__)

_READ = script("bloom_read")
_ADD = script("bloom_add")
_BEGIN = script("bloom_begin")
_FILL = script("bloom_fill")
_SWITCH = script("bloom_switch")
_MEASURE = script("bloom_measure")

_BITS = "bits"
_MODULE = "bf"
_IDS_AT_ONCE = 500  # a script holds up everybody else
_VERDICTS = {1: True, 0: False, -1: None}
_BUILT_AT_ONCE = 1_000  # between two turns of the loop
_FILL_LIFE_MS = 600_000
_SAMPLE_BYTES = 131_072

Chunks = AsyncIterable[Sequence[Id]] | Iterable[Sequence[Id]]


@dataclass(frozen=True, slots=True)
class Saturation:
    """How full a filter is. `fill` is the share of bits set, from a sample."""

    capacity: int
    bits: int
    fill: float
    estimated_ids: float
    false_positives: float


class Bloom:
    """One filter by name. `CacheClient.bloom` makes it."""

    def __init__(
        self, name: str, ask: Callable[[Call], Awaitable[Any]], settings: BloomSettings
    ) -> None:
        self.name = name
        self._ask = ask
        self._settings = settings
        self._keys = keys.bloom(name)
        self._fill_key = keys.bloom_fill(name)
        self.saturation: Saturation | None = None

    def __repr__(self) -> str:
        return f"<Bloom {self.name} {self.saturation}>"

    async def check(self, ids: Sequence[Id]) -> list[bool | None]:
        """Per id: True it may exist, False it does not, None unknown: there is no filter.

        Raises Unavailable or Indeterminate, which also mean unknown.
        """
        verdicts: list[bool | None] = []
        for start in range(0, len(ids), _IDS_AT_ONCE):
            replies = await self._ask(self.read_call((), ids[start : start + _IDS_AT_ONCE]))
            verdicts += [_VERDICTS[reply] for reply in replies]
        return verdicts

    async def add(self, ids: Iterable[Id]) -> None:
        """Add new ids: before their COMMIT, and once more after it where that costs little.

        Raises Unavailable where it is not certain that they are in the filter: then the write
        must not be committed. Where there is no filter, there is nothing to do.
        """
        pairs = [hashes_of(entry_id) for entry_id in ids]
        for start in range(0, len(pairs), _IDS_AT_ONCE):
            flat = [word for pair in pairs[start : start + _IDS_AT_ONCE] for word in pair]
            try:
                await self._ask(Call(_ADD, self._keys, flat))
            except Indeterminate as error:
                raise Unavailable(f"ids could not be added to a filter: {error}") from error

    def add_from_thread(self, ids: Iterable[Id], loop: asyncio.AbstractEventLoop) -> None:
        """`add`, for a transaction that runs on a thread beside `loop`."""
        asyncio.run_coroutine_threadsafe(self.add(list(ids)), loop).result()

    async def rebuild(self, chunks: Chunks, *, expected: int, settle_ms: int | None = None) -> int:
        """Build a new generation from `chunks` of all ids and switch to it; how many they were.

        `chunks` is read only after the longest transaction that adds an id (`settle_ms`) has
        passed: whoever added to the old generation alone is committed by then, so the read sees
        it; whoever comes later adds to both. 0 where nothing is being added. Raises Unavailable
        where the cache is away, another rebuild has begun, or a part of this one was lost.
        """
        shape = Shape.sized(self._capacity(expected), self._settings.false_positives)
        token = secrets.token_hex(8)
        kind = await self._begin(token, shape)
        await asyncio.sleep((self._settings.settle_ms if settle_ms is None else settle_ms) / 1000)
        if kind == _MODULE:
            count = await self._add_all(chunks)
        else:
            count = await self._fill_all(chunks, token, shape)
        if await self._certain(Call(_SWITCH, (*self._keys, self._fill_key), (token,))) != 1:
            raise Unavailable(f"the rebuild of the filter {self.name} was superseded")
        if count > shape.capacity:
            log.warning("a filter is over its capacity", filter=self.name, ids=count)
        await self.measure()
        return count

    async def present(self) -> bool:
        """False where there is no filter, or a damaged one. Raises Unavailable, Indeterminate."""
        return (await self.check(["present"]))[0] is not None

    async def measure(self) -> Saturation | None:
        """How full it is now, kept in `saturation`; None where that cannot be known."""
        try:
            found = await self._ask(Call(_MEASURE, self._keys, (_SAMPLE_BYTES,)))
        except (Unavailable, Indeterminate):
            found = None
        self.saturation = _saturation(found) if found else None
        return self.saturation

    def read_call(self, entry_keys: Sequence[str], ids: Iterable[Id]) -> Call:
        """The call that reads entries and, where there is none, asks the filter."""
        return Call(
            _READ,
            (*self._keys, *entry_keys),
            [word for entry_id in ids for word in hashes_of(entry_id)],
        )

    def _capacity(self, expected: int) -> int:
        return max(self._settings.capacity_min, math.ceil(expected * self._settings.headroom))

    async def _begin(self, token: str, shape: Shape) -> str:
        found: bytes = await self._certain(
            Call(
                _BEGIN,
                (*self._keys, self._fill_key),
                (
                    token,
                    _MODULE if self._settings.module else _BITS,
                    shape.bits,
                    shape.hashes,
                    shape.capacity,
                    str(self._settings.false_positives),
                    _FILL_LIFE_MS,
                ),
            )
        )
        return found.decode()

    async def _add_all(self, chunks: Chunks) -> int:
        count = 0
        async for chunk in _each(chunks):
            await self.add(chunk)
            count += len(chunk)
        return count

    async def _fill_all(self, chunks: Chunks, token: str, shape: Shape) -> int:
        bitmap = Bitmap(shape)
        count = 0
        async for chunk in _each(chunks):
            for start in range(0, len(chunk), _BUILT_AT_ONCE):
                count += bitmap.add(chunk[start : start + _BUILT_AT_ONCE])
                await asyncio.sleep(0)
        size = self._settings.chunk_bytes
        for start in range(0, len(bitmap.data), size):
            part = bytes(bitmap.data[start : start + size])
            args = (token, start, part, _FILL_LIFE_MS)
            if await self._certain(Call(_FILL, (self._keys[0], self._fill_key), args)) != 1:
                raise Unavailable(f"the rebuild of the filter {self.name} was superseded")
        return count

    async def _certain(self, call: Call) -> Any:
        try:
            return await self._ask(call)
        except Indeterminate as error:
            raise Unavailable(f"the filter {self.name} could not be rebuilt: {error}") from error


async def _each(chunks: Chunks) -> AsyncIterable[Sequence[Id]]:
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
    else:
        for chunk in chunks:
            yield chunk


def _saturation(found: Sequence[Any]) -> Saturation:
    """From the reply of bloom_measure.lua: kind, capacity, bits, hashes, and two counts."""
    kind = found[0]
    capacity, bits, hashes, part, whole = (int(word) for word in found[1:])
    fill = part / whole if whole else 0.0
    if kind == _MODULE.encode():  # ids there and its capacity; the module keeps its promise
        return Saturation(capacity, bits, fill, part, math.nan)
    shape = Shape(capacity, bits, hashes)
    return Saturation(capacity, bits, fill, shape.estimated_ids(fill), shape.false_positives(fill))
