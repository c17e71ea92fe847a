"""Seeds derived from what a draw is for, so that no draw depends on how many came before it."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Give a seed in [0, 2**63) from a run's seed and the names and counts of a draw.

    The same on every machine and in every process (Python's own `hash` is salted).
    """
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
