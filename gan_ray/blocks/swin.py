"""A Swin encoder and decoder: image to raw map, by attention within windows that shift.

Blocks of Liu et al. 2021, "Swin Transformer", arXiv:2103.14030; the decoder expands like Cao et al.
2021, "Swin-Unet", arXiv:2105.05537. Tokens are [B, H, W, C] throughout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from gan_ray.blocks.windows import window_partition, window_reverse
from gan_ray.errors import ConfigError

_STAGES = 4
_HEADS = 3
"""Attention heads of the first stage; each further stage doubles them, like its width."""


class SwinGenerator(nn.Module):
    """Image [B, channels, size, size] to raw map [B, channels, size, size], not activated.

    Patches of `patch` pixels become tokens of `embed` numbers; three stages of `depth` blocks halve
    the side and double the width, three mirror them, each taking the encoder's tokens of its side
    by concatenation; one stage lies between. In train mode whole blocks are left out at random, up
    to a share `drop_path` of the images in the middle, drawn from torch's global RNG.

    Only layer norms: an image's map is independent of the other rows.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        embed: int = 96,
        depth: int = 2,
        window: int = 4,
        patch: int = 2,
        drop_path: float = 0.1,
    ) -> None:
        """Build the layers; linear layers and biases of attention from N(0, 0.02), truncated.

        Raises:
            ConfigError: `embed` is no multiple of 3 heads, or a side does not divide into windows.
        """
        super().__init__()
        sides = stage_sides(size, patch, window)
        if embed % _HEADS:
            raise ConfigError(
                f"width {embed} of the Swin generator does not divide into {_HEADS} heads: choose "
                f"a multiple of {_HEADS}, such as 48 or 96."
            )
        widths = [embed << stage for stage in range(_STAGES)]

        def stage(level: int) -> nn.Sequential:
            heads = _HEADS << level
            blocks = []
            for number in range(depth):
                drop = drop_path * (level * depth + number) / max(1, _STAGES * depth - 1)
                shifted = number % 2 == 1
                blocks.append(SwinBlock(widths[level], heads, sides[level], window, shifted, drop))
            return nn.Sequential(*blocks)

        down, up = range(_STAGES - 1), range(_STAGES - 2, -1, -1)
        self.patches = nn.Conv2d(channels, embed, patch, patch)
        self.norm = nn.LayerNorm(embed)
        self.encoder = nn.ModuleList(stage(level) for level in down)
        self.merges = nn.ModuleList(PatchMerging(widths[level]) for level in down)
        self.middle = stage(_STAGES - 1)
        self.expands = nn.ModuleList(
            PatchExpanding(widths[level + 1], widths[level], 2) for level in up
        )
        self.fuses = nn.ModuleList(nn.Linear(2 * widths[level], widths[level]) for level in up)
        self.decoder = nn.ModuleList(stage(level) for level in up)
        self.pixels = PatchExpanding(embed, embed, patch)
        self.head = nn.Conv2d(embed, channels, 3, 1, 1)
        self.apply(_init_)

    def forward(self, images: Tensor) -> Tensor:
        """Translate."""
        tokens = self.norm(self.patches(images).permute(0, 2, 3, 1))
        skips = []
        for stage, merge in zip(self.encoder, self.merges, strict=True):
            tokens = stage(tokens)
            skips.append(tokens)
            tokens = merge(tokens)
        tokens = self.middle(tokens)
        for expand, fuse, stage in zip(self.expands, self.fuses, self.decoder, strict=True):
            tokens = stage(fuse(torch.cat((expand(tokens), skips.pop()), dim=-1)))
        raw: Tensor = self.head(self.pixels(tokens).permute(0, 3, 1, 2))
        return raw


def stage_sides(size: int, patch: int, window: int) -> list[int]:
    """Give the side of each stage in tokens, from the first to the middle.

    Raises:
        ConfigError: the image does not divide into patches that halve three times, or a stage wider
            than a window does not divide into windows.
    """
    coarsest = patch << (_STAGES - 1)
    if size < coarsest or size % coarsest:
        raise ConfigError(
            f"image size {size} does not fit a Swin generator with patches of {patch}: allowed are "
            f"multiples of {coarsest}, such as {8 * coarsest}. Set --data.image-size to one, or "
            "choose another patch."
        )
    sides = [size // patch >> stage for stage in range(_STAGES)]
    odd = [side for side in sides if side > window and side % window]
    if odd:
        raise ConfigError(
            f"a Swin stage of {odd[0]}x{odd[0]} tokens (image size {size}, patch {patch}) does not "
            f"divide into windows of {window}: choose a window that divides each of {sides} it is "
            "smaller than, such as 4 at sizes 64, 128 and 256."
        )
    return sides


class SwinBlock(nn.Module):
    """x + attention in windows, then x + MLP, both behind a layer norm: [B, side, side, width].

    A `shifted` block rolls the tokens by half a window first; those that only the roll made
    neighbours do not see each other. A side of one window or less is one window, not shifted.
    """

    def __init__(
        self, width: int, heads: int, side: int, window: int, shifted: bool, drop: float
    ) -> None:
        """Build it; `drop` is the share of images that a training pass leaves out of each half."""
        super().__init__()
        window = min(window, side)
        self.shift = window // 2 if shifted and window < side else 0
        self.attention_norm = nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, side // window, window, self.shift)
        self.mlp_norm = nn.LayerNorm(width)
        hidden = 4 * width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.drop_path = DropPath(drop)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [B, side, side, width] to the same shape."""
        shift, back = (-self.shift, -self.shift), (self.shift, self.shift)
        rolled = self.attention_norm(tokens).roll(shift, (1, 2))
        tokens = tokens + self.drop_path(self.attention(rolled).roll(back, (1, 2)))
        halves: Tensor = tokens + self.drop_path(self.mlp(self.mlp_norm(tokens)))
        return halves


class WindowAttention(nn.Module):
    """Multi-head self-attention in each of grid x grid windows, with a bias per offset and head."""

    index: Tensor
    blocked: Tensor

    def __init__(self, width: int, heads: int, grid: int, window: int, shift: int) -> None:
        """Build it; tokens were rolled by -`shift`."""
        super().__init__()
        self.heads, self.grid, self.window = heads, grid, window
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias, std=0.02)
        self.register_buffer("index", relative_index(window), persistent=False)
        self.register_buffer("blocked", blocked_pairs(grid, window, shift), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend [B, grid * window, grid * window, width]; same shape."""
        batch, width = tokens.shape[0], tokens.shape[-1]
        windows, count = self.grid**2, self.window**2
        inside = window_partition(tokens.permute(0, 3, 1, 2), self.grid).flatten(2).transpose(1, 2)
        # [3, B, windows * heads, T, d]: to the attention, each window's heads are heads of its own.
        split = self.qkv(inside).view(batch, windows, count, 3, self.heads, -1)
        query, key, value = split.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)
        found = scaled_dot_product_attention(query, key, value, attn_mask=self._bias())
        found = found.view(batch * windows, self.heads, count, -1).transpose(1, 2).flatten(2)
        maps = self.project(found).transpose(1, 2).reshape(-1, width, self.window, self.window)
        return window_reverse(maps, self.grid).permute(0, 2, 3, 1)

    def _bias(self) -> Tensor:
        """Give what is added to the scores: [1, windows * heads, T, T]."""
        bias = self.bias[self.index].permute(2, 0, 1)
        return bias.masked_fill(self.blocked[:, None], -torch.inf).flatten(0, 1)[None]


def relative_index(window: int) -> Tensor:
    """Number the offset of each pair of tokens, row by row: [T, T] in [0, (2 * window - 1)**2)."""
    rows, columns = torch.arange(window**2) // window, torch.arange(window**2) % window
    down, right = rows[:, None] - rows + window - 1, columns[:, None] - columns + window - 1
    return down * (2 * window - 1) + right


def blocked_pairs(grid: int, window: int, shift: int) -> Tensor:
    """Tell which pairs of tokens of a window do not touch in the image: bool [grid**2, T, T].

    The image was rolled by -`shift`: its first rows and columns lie behind its last ones.
    """
    side = grid * window
    region = (torch.arange(side) >= side - shift).long()
    regions = window_partition((2 * region[:, None] + region)[None, None], grid).flatten(1)
    return regions[:, :, None] != regions[:, None]


class PatchMerging(nn.Module):
    """Halve the side and double the width: [B, H, W, C] to [B, H / 2, W / 2, 2 C]."""

    def __init__(self, width: int) -> None:
        """Build it for tokens of `width` numbers."""
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.linear = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Merge each 2x2 tokens into one."""
        fours = torch.cat([tokens[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=-1)
        merged: Tensor = self.linear(self.norm(fours))
        return merged


class PatchExpanding(nn.Module):
    """Raise the side `factor` times: [B, H, W, inputs] to [B, factor H, factor W, outputs]."""

    def __init__(self, inputs: int, outputs: int, factor: int) -> None:
        """Build it."""
        super().__init__()
        self.factor = factor
        self.linear = nn.Linear(inputs, factor**2 * outputs, bias=False)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Expand each token into factor x factor of them."""
        batch, height, width, _ = tokens.shape
        factor = self.factor
        wide = self.linear(tokens).view(batch, height, width, factor, factor, -1)
        expanded: Tensor = self.norm(wide.transpose(2, 3).flatten(3, 4).flatten(1, 2))
        return expanded


class DropPath(nn.Module):
    """Leave out the branch of an image at random in train mode (Huang et al. 2016).

    What is kept is scaled up, so that the mean stays. Draws one number per image from torch's
    global RNG.
    """

    def __init__(self, share: float) -> None:
        """Leave out a `share` in [0, 1) of the images."""
        super().__init__()
        self.share = share

    def forward(self, branch: Tensor) -> Tensor:
        """Give the branch [B, ...], 0 for some images."""
        if not self.training or not self.share:
            return branch
        drawn = torch.rand(len(branch), *[1] * (branch.dim() - 1), device=branch.device)
        return branch * (drawn >= self.share).to(branch.dtype) / (1 - self.share)


def _init_(module: nn.Module) -> None:
    """Draw linear layers as Liu et al. do; convolutions keep torch's default."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
