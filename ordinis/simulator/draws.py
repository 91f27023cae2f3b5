"""Identities and chance, counted, so that a run can be had again to the letter.

While `repeatable`, an identity follows from the seed and the number of identities drawn before it:
the same requests make the same orders, ids too. Otherwise identities must never repeat, not even
for the same seed: Ordinis' own books outlive a reset of the exchange. Chance always follows from
the seed.
"""

import os
from hashlib import blake2b


class Draws:
    """What would be random at a real venue; `identities` and `rolls` are all there is to store."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.repeatable = False
        self.identities = 0
        self.rolls = 0

    def identity(self) -> str:
        """A UUID of version 4, as text."""
        digits = self.noise(16).hex()
        variant = "89ab"[int(digits[16], 16) & 3]
        return (
            f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
        )

    def noise(self, size: int) -> bytes:
        if not self.repeatable:
            return os.urandom(size)
        self.identities += 1
        return self._bytes("identity", self.identities, size)

    def chance(self, probability: float) -> bool:
        return probability > 0 and self._roll() < probability * 2**64

    def below(self, limit: int) -> int:
        """From 0 up to, not including, the limit."""
        return self._roll() % limit

    def _roll(self) -> int:
        self.rolls += 1
        return int.from_bytes(self._bytes("roll", self.rolls, 8), "big")

    def _bytes(self, kind: str, number: int, size: int) -> bytes:
        return blake2b(f"{self.seed}:{kind}:{number}".encode(), digest_size=size).digest()
