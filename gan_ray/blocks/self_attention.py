"""Self-attention between the places of a map."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from gan_ray.blocks.encodings import PositionalEncoding
from gan_ray.blocks.windows import window_partition, window_reverse
from gan_ray.errors import ConfigError


class SelfAttention2d(nn.Module):
    """Layer norm of x + attention(x): every cell of a whole image looks at every other.

    Multi-head attention of Vaswani et al. 2017 with the norm after the sum; `position` turns
    queries and keys and adds to their products.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        position: PositionalEncoding,
        *,
        grid: int = 1,
        dropout: float = 0.0,
    ) -> None:
        """Build the layers in torch's default initialisation.

        Maps come as windows of `grid` x `grid` and are put together before. Raises ConfigError
        where the heads do not divide the channels.
        """
        super().__init__()
        check_heads(channels, heads)
        self.heads, self.grid, self.position = heads, grid, position
        self.inputs = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(channels)

    def forward(self, windows: Tensor) -> Tensor:
        """Map windows [B * grid**2, C, h, w] to the same shape; torch's RNG draws the dropout."""
        maps = window_reverse(windows, self.grid)
        cells = maps.flatten(2).transpose(1, 2)
        split = self.inputs(cells).view(*cells.shape[:2], 3, self.heads, -1)
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)
        queries, keys = self.position.rotate(queries, keys)
        bias = self.position.attention_bias()
        if bias is not None:
            bias = bias.to(queries)
        seen = scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        joined = self.output(seen.transpose(1, 2).flatten(2))
        outputs: Tensor = self.norm(cells + self.dropout(joined))
        return window_partition(outputs.transpose(1, 2).reshape(maps.shape), self.grid)


def check_heads(channels: int, heads: int) -> None:
    """Refuse a number of heads that does not divide the channels.

    Raises:
        ConfigError: it does not.
    """
    if channels % heads:
        raise ConfigError(
            f"{heads} heads cannot share {channels} channels of self-attention evenly. Set "
            f"--model.heads to a divisor of {channels}, or another --model.width."
        )
