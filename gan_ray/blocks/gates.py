"""Gates that say how much of a skip connection passes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from gan_ray.blocks.norm import norm_layer


class AttentionGate(nn.Module):
    """skip * sigmoid(N(w . relu(IN(A gate) + IN(B skip)))), A, B and w 1x1 convolutions.

    Oktay et al. 2018 (Attention U-Net, arXiv:1804.03999), as SAGAN's code has it. With `norm`, N
    is instance norm, as published: the logits of a window have mean 0, so a gate is never wholly
    open or closed; without, it is the identity.
    """

    def __init__(self, channels: int, *, norm: bool = True) -> None:
        """Build it for maps of `channels`, in torch's default initialisation."""
        super().__init__()
        inside = channels // 2

        def project() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels, inside, 1), norm_layer("plain_instance", inside)
            )

        self.gate, self.skip = project(), project()
        self.logit = nn.Sequential(
            nn.Conv2d(inside, 1, 1), norm_layer("plain_instance" if norm else "none", 1)
        )

    def forward(self, gate: Tensor, skip: Tensor) -> Tensor:
        """Let parts of `skip` [B, C, H, W] pass, as `gate`, of the same shape, asks."""
        opened: Tensor = self.logit(relu(self.gate(gate) + self.skip(skip))).sigmoid()
        return skip * opened
