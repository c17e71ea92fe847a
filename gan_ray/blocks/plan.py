"""How deep and how wide a convolutional network is at a given image size."""

from __future__ import annotations

from dataclasses import dataclass

from gan_ray.errors import ConfigError


@dataclass(frozen=True)
class ResolutionPlan:
    """The ladder between an image of `size` pixels and the smallest map that networks work on.

    `root` is the side of that map, 4 to 7 pixels, and `stages` the number of halvings between the
    two: size = root * 2^stages. 64 pixels are the 4 stages 64-32-16-8-4, 28 pixels 28-14-7.
    """

    size: int

    def __post_init__(self) -> None:
        """Refuse sizes below 8 and those that cannot be halved down to 4..7 pixels."""
        if self.size < 8:
            raise ConfigError(
                f"images of {self.size} x {self.size} pixels are too small for this network: it "
                "needs 8 or more. Raise --data.image-size."
            )
        step = 1 << self.stages
        if self.size % step:
            below = self.size // step * step
            raise ConfigError(
                f"images of {self.size} x {self.size} pixels do not suit this network: it halves "
                f"them {self.stages} times, so the size must be a multiple of {step} there. Set "
                f"--data.image-size to {below} or {below + step}."
            )

    @property
    def stages(self) -> int:
        """Number of halvings from `size` to `root`."""
        return (self.size // 4).bit_length() - 1

    @property
    def root(self) -> int:
        """Side of the smallest map in pixels."""
        return self.size >> self.stages

    def channels(self, width: int, widest: int) -> tuple[int, ...]:
        """Give the channels at `size`, `size` / 2, ..., `root`; generators read them backwards.

        `width` at first, doubled by each halving until it is `widest` times `width`.
        """
        return tuple(width * min(1 << stage, widest) for stage in range(self.stages + 1))
