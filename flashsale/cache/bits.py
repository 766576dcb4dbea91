"""The arithmetic of Bloom filters: sizes, the two hashes of an id, a bitmap as Redis lays it out.

Sizes after Bloom (1970); double hashing after Kirsch and Mitzenmacher (2006): bit i of an id is
(first + i × second) mod bits. Lua computes the same in doubles, hence 40 bits a hash.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from xxhash import xxh3_128_intdigest

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
