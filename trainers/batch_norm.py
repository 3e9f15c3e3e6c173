"""Batch norm under batches that change their size: statistics over parts of a batch, and exact ones over many batches.

Multigrid multiplies the clips of a batch by up to 8 (and by 4 again in the short cycle). `SubBatchNorm3d` keeps each mean
and variance over about as many clips as without it. Source: Wu et al., A Multigrid Method for Efficiently Training Video
Models, arXiv 1912.00998, section 4; names and arithmetic are those of SlowFast, which published it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Batch = TypeVar("Batch")

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class SubBatchNorm3d(nn.Module):
    """Batch norm of (B, C, T, H, W) over `num_splits` parts of the batch, each with its own statistics in training.

    Part j holds the clips j, j + num_splits, ... In evaluation one set of statistics counts, `bn`, which `eval()` puts
    together from those of the parts (`split_bn`). Weight and bias are shared.

    `num_splits` may be changed at any time (`set_num_splits`), and a state dict may have another number of parts or be
    that of a plain batch norm.

    Raises: ValueError in training when the batch does not divide into the parts.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self, num_features: int, *, num_splits: int = 1, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True
    ) -> None:
        super().__init__()
        self.num_features, self.num_splits = num_features, num_splits
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        self.bn = nn.BatchNorm3d(num_features, eps, momentum, affine=False)
        self.split_bn = nn.BatchNorm3d(num_features * num_splits, eps, momentum, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = self._normalise_parts(x)
        else:
            x = self.bn(x)
        if self.weight is None or self.bias is None:
            return x
        shape = (1, -1, 1, 1, 1)
        return x * self.weight.view(shape) + self.bias.view(shape)

    def _normalise_parts(self, x: Tensor) -> Tensor:
        if self.num_splits == 1:
            return self.split_bn(x)
        num_clips = x.shape[0]
        if num_clips % self.num_splits:
            raise ValueError(f"a batch of {num_clips} clips does not divide into {self.num_splits} parts of equal size")
        last = x.is_contiguous(memory_format=torch.channels_last_3d) and not x.is_contiguous()
        parts = x.reshape(num_clips // self.num_splits, self.num_splits * self.num_features, *x.shape[2:])
        normed = self.split_bn(parts).reshape(x.shape)
        return normed.contiguous(memory_format=torch.channels_last_3d) if last else normed

    @torch.no_grad()
    def aggregate(self) -> None:
        """Put the statistics of the parts together in `bn`: mean of means; mean of variances + variance of means."""
        means, variances = (
            statistic.view(self.num_splits, self.num_features)
            for statistic in (_of(self.split_bn, "running_mean"), _of(self.split_bn, "running_var"))
        )
        _of(self.bn, "running_mean").copy_(means.mean(0))
        _of(self.bn, "running_var").copy_(variances.mean(0) + means.var(0, correction=0))

    @torch.no_grad()
    def set_num_splits(self, num_splits: int) -> None:
        """Go on with another number of parts, all of which begin with what the old ones had together."""
        if num_splits < 1:
            raise ValueError(f"num_splits is {num_splits}; a batch has at least one part")
        if num_splits == self.num_splits:
            return
        self.aggregate()
        self._resize(num_splits)

    def _resize(self, num_splits: int) -> None:
        self.num_splits = num_splits
        self.split_bn.num_features = num_splits * self.num_features
        for name in ("running_mean", "running_var"):
            # In place: whoever holds the buffer (DDP does) keeps the right one.
            _of(self.split_bn, name).resize_(num_splits * self.num_features)
            _of(self.split_bn, name).copy_(_of(self.bn, name).repeat(num_splits))

    def train(self, mode: bool = True) -> SubBatchNorm3d:
        if self.training and not mode:
            self.aggregate()
        super().train(mode)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}running_mean" in state_dict:
            state_dict |= to_sub(
                {f"{prefix}{name}": state_dict.pop(f"{prefix}{name}") for name in _STATISTICS}, {prefix[:-1]: self}
            )
        elif (split := state_dict.get(f"{prefix}split_bn.running_mean")) is not None:
            self._resize(len(split) // self.num_features)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        return f"{self.num_features}, num_splits={self.num_splits}"


def _of(norm: nn.BatchNorm3d, name: str) -> Tensor:
    statistic = getattr(norm, name)
    assert isinstance(statistic, Tensor)
    return statistic


def with_sub_batch_norm(model: nn.Module, num_splits: int = 1) -> nn.Module:
    """`model` with a `SubBatchNorm3d` in place of every `BatchNorm3d`, weights and statistics kept. Changes it in place."""
    for name, child in list(model.named_children()):
        if isinstance(child, nn.BatchNorm3d):
            new = SubBatchNorm3d(
                child.num_features,
                num_splits=num_splits,
                eps=child.eps,
                momentum=0.1 if child.momentum is None else child.momentum,
                affine=child.affine,
            )
            new.to(_of(child, "running_mean").device)
            new.load_state_dict(child.state_dict())
            setattr(model, name, new.train(child.training))
        elif not isinstance(child, SubBatchNorm3d):
            with_sub_batch_norm(child, num_splits)
    return model


def sub_batch_norms(model: nn.Module) -> dict[str, SubBatchNorm3d]:
    """Those of a model, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SubBatchNorm3d)}


def set_clips_per_statistic(model: nn.Module, clips_per_device: int, base_clips: int = 8) -> int:
    """Split batches of `clips_per_device` into parts of about `base_clips`. Returns the number of parts.

    The largest number that divides the batch and leaves at least `base_clips` in every part: every batch of a multigrid
    stage is a multiple of its full shape's, so it divides too.
    """
    most = max(1, clips_per_device // base_clips)
    num_splits = next(number for number in range(most, 0, -1) if clips_per_device % number == 0)
    for norm in sub_batch_norms(model).values():
        norm.set_num_splits(num_splits)
    return num_splits


def to_plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with sub batch norms as one of plain batch norms: aggregated statistics, under the plain names."""
    plain = {}
    for name, value in state.items():
        head, _, leaf = name.rpartition(".")
        # A batch norm that is itself called `bn` has no `split_bn` beside it.
        owner, _, kind = head.rpartition(".")
        sub = f"{owner}.split_bn.{leaf}" if owner else f"split_bn.{leaf}"
        if leaf not in _STATISTICS or kind not in ("bn", "split_bn") or sub not in state:
            plain[name] = value
        elif (kind == "bn") == (leaf != "num_batches_tracked"):
            plain[f"{owner}.{leaf}" if owner else leaf] = value
    return plain


def to_sub(state: Mapping[str, Tensor], norms: Mapping[str, SubBatchNorm3d]) -> dict[str, Tensor]:
    """A state dict of plain batch norms for a model in which those called by `norms` are sub batch norms."""
    sub = {}
    for name, value in state.items():
        owner, _, leaf = name.rpartition(".")
        if owner not in norms or leaf not in _STATISTICS:
            sub[name] = value
            continue
        parts = 1 if leaf == "num_batches_tracked" else norms[owner].num_splits
        prefix = f"{owner}." if owner else ""
        sub[f"{prefix}bn.{leaf}"] = value
        sub[f"{prefix}split_bn.{leaf}"] = value.repeat(parts) if parts > 1 else value
    return sub


# Precise statistics


class _Sums:
    """Of one norm: values seen per channel, their sum, the sum of their squares. float64, so that batches add up."""

    def __init__(self, num_features: int, device: torch.device) -> None:
        self.totals = torch.zeros(1 + 2 * num_features, dtype=torch.float64, device=device)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        axes = [axis for axis in range(x.ndim) if axis != 1]
        variance, mean = torch.var_mean(x.detach().double(), axes, correction=0)
        count = x.numel() // x.shape[1]
        self.totals += torch.cat([mean.new_tensor([1.0]), mean, variance + mean**2]) * count

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and unbiased variance."""
        count, mean, square = self.totals[0], *(self.totals[1:] / self.totals[0]).chunk(2)
        return mean, (square - mean**2).clamp_min(0) * count / (count - 1)


@torch.no_grad()
def precise_statistics(
    model: nn.Module,
    forward: Callable[[Batch], object],
    batches: Iterable[Batch],
    num_batches: int,
    all_reduce: Callable[[Tensor], Tensor] | None = None,
) -> int:
    """Replace the running statistics of every batch norm by the exact ones of up to `num_batches` batches.

    `forward` runs the model on a batch; norms work on each batch's own statistics meanwhile, as in training. The sums of
    all ranks are put together by `all_reduce`. Modes are as they were afterwards. Returns the batches used.

    Raises: ValueError if there is not a single batch.
    Source: Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv 2105.07576, section 3 (population statistics).
    """
    subs = sub_batch_norms(model)
    inner = {id(child) for norm in subs.values() for child in norm.children()}
    norms: list[nn.Module] = [
        module
        for module in model.modules()
        if id(module) not in inner
        and (
            isinstance(module, SubBatchNorm3d)
            or (isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats)
        )
    ]
    modes = {module: module.training for module in model.modules()}
    sums: dict[nn.Module, _Sums] = {}
    model.train()
    used = 0
    with ExitStack() as hooks:
        hooks.enter_context(torch.compiler.set_stance("force_eager"))  # A compiled graph would not see the hooks.
        for norm in norms:
            kept = norm.bn.running_mean if isinstance(norm, SubBatchNorm3d) else norm.running_mean
            assert isinstance(kept, Tensor)
            sums[norm] = _Sums(len(kept), kept.device)
            hooks.callback(norm.register_forward_pre_hook(sums[norm]).remove)
        for batch in batches:
            forward(batch)
            used += 1
            if used == num_batches:
                break
    for module, mode in modes.items():
        module.training = mode
    if not used:
        raise ValueError("precise statistics need at least one batch, there was none")
    for norm, each in sums.items():
        if all_reduce is not None:
            each.totals = all_reduce(each.totals)
        if float(each.totals[0]) > 1:  # A norm that the forward never reached keeps what it has.
            _write(norm, *each.moments())
    return used


def _write(norm: nn.Module, mean: Tensor, variance: Tensor) -> None:
    targets = [(norm.bn, 1), (norm.split_bn, norm.num_splits)] if isinstance(norm, SubBatchNorm3d) else [(norm, 1)]
    for target, parts in targets:
        for name, value in (("running_mean", mean), ("running_var", variance)):
            statistic = getattr(target, name)
            statistic.copy_(value.repeat(parts))
