"""Several processes train one network: each computes some rows of the batch, and the result is that of one process.

Row i of a batch belongs to process i modulo their number (:func:`cgankd.core.ranks.rows`). Outputs and features of all
rows are collected before the loss, because losses may compare pairs of images. So every process computes the same loss
of the whole batch. The gradient reaches only the process's own rows: what its student gets is a part of the gradient,
and the parts add up to the gradient of one process, without any approximation.

Networks are not wrapped in DistributedDataParallel, because methods read layers inside of them, and because it averages
gradients of separate losses, where here parts of one loss are added. With one process, every function here returns what
it is given.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cgankd.core import ranks
from cgankd.core.errors import UserError
from cgankd.core.shared_weights import is_divided


def check_batch(size: int, count: int, where: str = "") -> None:
    """UserError where ``count`` processes can't share a batch of ``size`` images. where: the section of batch_size."""
    if size < count:
        raise UserError(
            f"{where}batch_size = {size}, but {count} processes share each batch; needed: at least {count}, or fewer "
            "processes (runtime.devices, runtime.nodes)"
        )


def own_rows(values: Tensor, copies: int = 1) -> Tensor:
    """The rows of this process: [copies B, ..] -> [copies b, ..]."""
    if ranks.share()[1] == 1:
        return values
    return values.unflatten(0, (copies, -1))[:, ranks.rows()].flatten(0, 1)


def all_rows(values: Tensor, total: int, copies: int = 1) -> Tensor:
    """The rows of all processes in the order of the batch: [copies b, ..] -> [copies total, ..].

    copies: parts of the same length, such as images and their extra views. The gradient reaches this process's own
    rows alone.
    """
    number, count = ranks.share()
    if count == 1:
        return values
    own = values.unflatten(0, (copies, -1))  # [copies, b, ..]
    mine = own.new_zeros(copies, math.ceil(total / count), *own.shape[2:])
    mine[:, : own.shape[1]] = own.detach()
    theirs = [torch.empty_like(mine) for _ in range(count)]
    with ranks.exchanging():
        dist.all_gather(theirs, mine)
    rows = torch.stack(theirs, dim=2).flatten(1, 2)[:, :total].clone()
    rows[:, number::count] = own
    return rows.flatten(0, 1)


def var_mean(values: Tensor, dim: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """As torch.var_mean without correction, over the rows of all processes. dim: 0, that of the rows, and others.

    As in :func:`all_rows`, the gradient reaches this process's own rows alone.
    """
    var, mean = torch.var_mean(values, dim, correction=0)
    count = ranks.share()[1]
    if count == 1:
        return var, mean
    own = torch.stack([mean, mean.square() + var, torch.ones_like(mean)]).double() * len(values)
    total, squares, rows = all_rows(own[None], count).sum(dim=0)
    mean = total / rows
    return (squares / rows - mean.square()).clamp_min(0.0).to(values), mean.to(values)


def add_gradients(network: nn.Module, repeated: nn.Module | None = None) -> None:
    """Add up the gradients of all processes, in place.

    network: each process has a part of its gradient. repeated: each process has all of its gradient, because it
    computed it from the whole batch; the mean keeps the processes equal to the last bit. Of weights that lie in parts
    the gradients are added up in the backward pass (nets/parts.py).
    """
    count = ranks.share()[1]
    if count == 1:
        return
    weights = [weight for weight in network.parameters() if weight.requires_grad and not is_divided(weight)]
    # a layer that only some images reach has no gradient in a process without such images
    missing = [number for number, weight in enumerate(weights) if weight.grad is None]
    parts = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    same = () if repeated is None else repeated.parameters()
    whole = [weight.grad for weight in same if weight.grad is not None]
    if not (parts or whole):
        return
    known = torch.ones(len(weights), device=(*parts, *whole)[0].device)
    if missing:  # only then, because it waits for a GPU, as reading does below
        known[missing] = 0.0
    flat = torch.cat([*(g.flatten() for g in parts), *(g.flatten() / count for g in whole), known])
    with ranks.exchanging():  # one exchange for all; Fabric's all_reduce would also wait at a barrier before
        dist.all_reduce(flat)
    *totals, known = flat.split([g.numel() for g in (*parts, *whole, known)])
    for gradient, total in zip([*parts, *whole], totals, strict=True):
        gradient.copy_(total.view_as(gradient))
    anywhere = known.tolist() if missing else []
    for number in missing:
        if anywhere[number]:
            weights[number].grad = parts[number]


def changed_by_first(module: nn.Module, change: Callable[[], None]) -> None:
    """Let the first process change the state of ``module``, which the others then take over."""

    def state() -> Mapping[str, Tensor] | None:
        change()
        return {name: value.cpu() for name, value in module.state_dict().items()} if several else None

    several = ranks.share()[1] > 1
    if (changed := ranks.first_of_team(state)) is not None:
        module.load_state_dict(changed)


def batch_statistics(twice: bool = False) -> contextlib.AbstractContextManager[Any]:
    """In this block, batch normalisation in training computes its statistics from the rows of all processes.

    twice: its gradient must have a gradient.
    """
    return contextlib.nullcontext() if ranks.share()[1] == 1 else _BatchStatistics(twice)


class _BatchStatistics(TorchFunctionMode):
    """Replaces torch's batch normalisation.

    torch.nn.SyncBatchNorm is not used, because it works on CUDA alone and replaces layers, also those of classes that
    only inherit from BatchNorm, such as timm's, which compute more.
    """

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.twice = twice

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """As torch.nn.functional.batch_norm; input [b, C, ..]."""
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        values, channels = input.float(), input.shape[1]
        weight = values.new_ones(channels) if weight is None else weight
        bias = values.new_zeros(channels) if bias is None else bias
        normalise = _normalised if self.twice else _Normalised.apply
        normed, mean, var, count = normalise(values, weight, bias, eps)
        with torch.no_grad():
            if running_mean is not None and running_var is not None:
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_((var * count / (count - 1)).to(running_var.dtype), momentum)
        return normed.to(input.dtype)  # type: ignore[no-any-return]


Normed = tuple[Tensor, Tensor, Tensor, Tensor]  # normalised values; mean and variance [C], number of values for each


def _normalised(values: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Normed:
    """Batch normalisation as plain operations, which can be differentiated any number of times."""
    var, mean = torch.var_mean(values, [0, *range(2, values.ndim)], correction=0)
    mean, var, count = _of_all(mean, var, values.numel() // values.shape[1])
    scale = (var + eps).rsqrt() * weight
    return _affine(values, scale, bias - mean * scale), mean, var, count


class _Normalised(torch.autograd.Function):
    """The same by torch's own kernels, which takes less than half of the time."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Normed:
        mean, var = torch.batch_norm_update_stats(values, None, None, 0.0)
        mean, var, count = (part.float() for part in _of_all(mean, var, values.numel() // values.shape[1]))
        ctx.save_for_backward(values, weight, mean, var, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var, count)
        return F.batch_norm(values, mean, var, weight, bias, False, 0.0, eps), mean, var, count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, *others: Tensor) -> Any:
        values, weight, mean, var, count = ctx.saved_tensors
        # with fixed statistics; what the statistics add is an affine function of the values
        of_values, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, values, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        sum_weight, sum_bias = _Sum.apply(torch.stack([of_weight, of_bias])).unbind()
        root = (var + ctx.eps).rsqrt()
        slope = -weight * root.square() * sum_weight / count
        shift = -weight * root * sum_bias / count - slope * mean
        return _affine(values, slope, shift).add_(of_values), of_weight, of_bias, None


def _of_all(mean: Tensor, var: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance [C] over the rows of all processes, and the number of values [1]; all float64."""
    mean, var = mean.double(), var.double()  # because a mean of squares minus a squared mean loses digits
    own = mean.new_tensor([count])
    sums = _Sum.apply(torch.cat([own * mean, own * (var + mean.square()), own]))
    total = sums[-1:]
    mean, square = (sums[:-1] / total).chunk(2)
    return mean, (square - mean.square()).clamp_min(0.0), total


def _affine(values: Tensor, slope: Tensor, shift: Tensor) -> Tensor:
    """slope x + shift, by channel."""
    shape = (1, -1, *[1] * (values.ndim - 2))
    return torch.addcmul(shift.to(values).view(shape), values, slope.to(values).view(shape))


class _Sum(torch.autograd.Function):
    """The sum over all processes. Each of them uses it, so its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        with ranks.exchanging():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Sum.apply(gradient.contiguous())
