"""Spectral normalisation of whole networks."""

from __future__ import annotations

from collections.abc import Container

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrizations import spectral_norm


def bound_spectrum_(network: nn.Module, *, skip: Container[str] = ()) -> None:
    """Divide every convolution, linear layer and embedding by its largest singular value.

    Miyato et al. 2018, arXiv:1802.05957: one step of power iteration at each pass in train mode,
    none in eval mode. Modules named in `skip` (dotted, within `network`) stay free. Call it last,
    on initialised weights: it renames the parameters.
    """
    for name, layer in list(network.named_modules()):
        if isinstance(layer, (_ConvNd, nn.Linear, nn.Embedding)) and name not in skip:
            spectral_norm(layer)
