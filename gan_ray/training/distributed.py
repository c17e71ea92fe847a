"""Averages over ranks; on one process they do nothing.

Gradients are averaged explicitly over the parameters a step trains, after its backward pass. No
wrapper around networks: a gradient penalty, features of a critic and a step with one head only are
exact, and checkpoints hold plain names. Cost: no overlap of communication with computation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def rank() -> int:
    """This process's rank, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of ranks, 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def mean_(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their mean over ranks, in one collective per type; all ranks call it."""
    if world_size() == 1:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor)
    for group in by_type.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        flat /= world_size()
        parts = torch.split(flat, [tensor.numel() for tensor in group])
        for tensor, part in zip(group, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def minimum_(tensor: Tensor) -> None:
    """Replace a tensor by its elementwise minimum over ranks; all ranks call it."""
    if world_size() > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.MIN)


def maximum(value: float, device: torch.device) -> float:
    """Give the largest of the ranks' values; all ranks call it."""
    largest = torch.tensor(float(value), dtype=torch.float64, device=device)
    if world_size() > 1:
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return float(largest)


def gather(value: T) -> list[T]:
    """Give the ranks' values (anything that pickles) in their order; all ranks call it."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def average_gradients_(parameters: Iterable[nn.Parameter]) -> None:
    """Average `.grad` over ranks; a parameter without a gradient counts as zero on every rank."""
    if world_size() == 1:
        return
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    mean_(gradients)


def average_buffers_(module: nn.Module) -> None:
    """Average floating-point buffers that are kept (running statistics of batch norm) over ranks.

    Those that no checkpoint keeps are derived from settings and equal everywhere: a mean of three
    would move their last bit, and a resumed training would then differ from an unbroken one.
    """
    kept = module.state_dict(keep_vars=True)
    mean_(b for name, b in module.named_buffers() if name in kept and b.is_floating_point())


def from_first_rank(value: T) -> T:
    """Give the value (anything that pickles) of rank 0; all ranks call it."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def broadcast_(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    if world_size() == 1:
        return
    for tensor in (*module.parameters(), *module.buffers()):
        dist.broadcast(tensor.data, src=0)


def assert_in_sync(module: nn.Module) -> None:
    """Check that parameters and buffers are equal bit for bit on all ranks.

    Raises:
        AssertionError: they differ, which is a mistake of ours; names the first tensor.
    """
    if world_size() == 1:
        return
    named = [*module.named_parameters(), *module.named_buffers()]
    if not named:
        return
    same = []
    for _, tensor in named:
        first = tensor.detach().clone()
        dist.broadcast(first, src=0)
        same.append((first == tensor.detach()).all())
    agreed = torch.stack(same).float()
    minimum_(agreed)  # one for all: each would cost a collective and a wait for the device
    for (name, _), value in zip(named, agreed.tolist(), strict=True):
        if not value:
            raise AssertionError(f"ranks disagree on '{name}'")


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """Give the mean over ranks as a value, with the gradient of this rank's own summand times N.

    For a loss term that is not a mean over samples, such as a squared mean: after gradients are
    averaged over ranks they are exactly those of one process with all rows.
    """
    if world_size() == 1:
        return tensor
    whole = tensor.detach().clone()
    mean_([whole])
    return tensor + (whole - tensor.detach())
