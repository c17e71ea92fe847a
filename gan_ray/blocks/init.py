"""First values of the weights: functions for `nn.Module.apply`, drawn from torch's global RNG.

Each touches convolutions, linear layers and affine norms only, so it may be applied to a network as
a whole. The caller seeds torch.
"""

from __future__ import annotations

from math import sqrt

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd


def init_dcgan_(module: nn.Module) -> None:
    """N(0, 0.02) for convolutions and linear layers, N(1, 0.02) for batch-norm scales, biases 0.

    Radford et al. 2016, arXiv:1511.06434, section 4, and the authors' code (the scales).
    """
    if isinstance(module, (_ConvNd, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        _zero_bias_(module)
    elif isinstance(module, _BatchNorm) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
        _zero_bias_(module)


def init_glorot_(module: nn.Module) -> None:
    """Uniform of variance 2 / (fan_in + fan_out) for convolutions and linear layers, biases 0.

    Glorot & Bengio 2010, eq. 16.
    """
    if isinstance(module, (_ConvNd, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
        _zero_bias_(module)


def init_residual_(module: nn.Module) -> None:
    """Uniform of variance 4 / (fan_in + fan_out) for k x k convolutions, Glorot for all others.

    The residual networks of Gulrajani et al. 2017 and of f-AnoGAN, whose code calls the larger
    variance "he": it makes up for the ReLU before each k x k convolution of a residual branch. A
    convolution that sees raw pixels (a critic's stem) takes `init_glorot_` afterwards.
    """
    if isinstance(module, _ConvNd) and any(side > 1 for side in module.kernel_size):
        nn.init.xavier_uniform_(module.weight, gain=sqrt(2.0))
        _zero_bias_(module)
    else:
        init_glorot_(module)


def init_orthogonal_(module: nn.Module) -> None:
    """Orthogonal rows or columns for convolutions, linear layers and embeddings, biases 0.

    Saxe et al. 2014, arXiv:1312.6120; a convolution counts as a matrix [channels out, all else].
    Depthwise kernels take He's normal of variance 2 / k^2: as a matrix of one short row per channel
    they would come out ever smaller, the more channels there are.
    Apply it before spectral norm, which renames the weights and starts from their singular values.
    """
    if isinstance(module, nn.Embedding):
        nn.init.orthogonal_(module.weight)
    elif isinstance(module, _ConvNd) and module.groups == module.in_channels > 1:
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        _zero_bias_(module)
    elif isinstance(module, (_ConvNd, nn.Linear)):
        nn.init.orthogonal_(module.weight)
        _zero_bias_(module)


def _zero_bias_(module: _ConvNd | nn.Linear | _BatchNorm) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)
