"""How much to take on at once and how long to wait for it, by what one image costs.

Most systems look at an image in a few passes of their networks; one that searches takes a thousand.
What is usual for the first is cut or stretched in proportion for the second.
"""

from __future__ import annotations

SLOW = 100
"""Network passes per image up to which what is usual holds."""


def at_once(images: int, passes_per_image: int) -> int:
    """Give how many images to take on together where `images` are usual; at least one."""
    return max(1, images * SLOW // max(passes_per_image, SLOW))


def patience(seconds: float, passes_per_image: int) -> float:
    """Give how long to wait where `seconds` are usual."""
    return seconds * max(passes_per_image, SLOW) / SLOW
