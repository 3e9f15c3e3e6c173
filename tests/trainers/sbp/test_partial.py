"""The operations of SBP by themselves: gradients, what is saved, what is refused, precision, ranks, compilation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from trainers.backbones.video_swin import VideoSwin, attend
from trainers.sbp.attention import kept_attention
from trainers.sbp.partial import PartialRows, partial_backward, partial_rows, recompute
from trainers.sbp.swin import Sbp, SbpVideoSwin

SETTINGS = {
    "patch_size": (1, 2, 2), "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": (2, 2, 2),
    "drop_path_rate": 0.0,
}  # fmt: skip
SBP = Sbp(2, ((1, 1), (1, 0)))


def saved(forward: Callable[[], Tensor], but: nn.Module | None = None) -> int:
    """Values in all storages that are saved for the backward pass, without parameters."""
    own = {each.untyped_storage()._cdata for each in (but.parameters() if but is not None else ())}
    held: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            held[storage._cdata] = (storage.nbytes() // tensor.element_size(), tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(count for count, _ in held.values())


def mlp(dim: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim)).double()


def test_a_module_learns_at_kept_positions_only() -> None:
    ours, plain = PartialRows(mlp()), mlp()
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    keep = torch.rand(6, 5, generator=torch.Generator().manual_seed(1)) < 0.3
    results = []
    for model, mask in ((lambda x: ours(x, keep), None), (plain, keep)):
        leaf = x.clone().requires_grad_()
        y = model(leaf)
        if mask is not None:
            y.register_hook(lambda gradient: gradient * keep[..., None])
        y.square().sum().backward()
        results.append((y.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1])
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_only_kept_rows_are_saved() -> None:
    ours = PartialRows(mlp())
    x = torch.randn(10, 8, 4, dtype=torch.float64, requires_grad=True)
    keep = torch.zeros(10, 1, dtype=torch.bool)
    keep[[2, 7]] = True
    assert saved(lambda: ours(x, keep), ours) == 2 * 8 * 4


def test_a_block_saves_its_input_alone_whatever_is_kept() -> None:
    with torch.no_grad():
        tokens = torch.randn(1, 4, 4, 4, 8)
    for downsample in (2, 4):
        model = SbpVideoSwin(Sbp(downsample, ((1, 1), (1, 0))), **SETTINGS)
        block = model.layers[0].blocks[1]
        x = tokens.clone().requires_grad_()
        assert saved(lambda block=block, x=x: block(x), block) == x.numel()


def test_saved_bytes_are_a_fraction_of_plain() -> None:
    """The benchmark's figure in small: windows of 2 x 4 x 4, so that scores weigh less than in the published ones."""
    settings = SETTINGS | {"window_size": (2, 4, 4), "embed_dim": 16}
    clip = torch.randn(1, 3, 8, 32, 32)
    plain, ours = VideoSwin(**settings), SbpVideoSwin(Sbp(2, ((1, 1), (1, 1))), **settings)
    assert saved(lambda: ours(clip), ours) < 0.25 * saved(lambda: plain(clip), plain)


def test_bytes_counted_without_computing_are_those_of_computing() -> None:
    """What the benchmark of memory relies on."""
    for model in (VideoSwin(**SETTINGS), SbpVideoSwin(SBP, **SETTINGS), VideoSwin(**SETTINGS, checkpointing=True)):
        clip = torch.randn(1, 3, 4, 8, 8)
        real = saved(lambda model=model, clip=clip: model(clip), model)
        model, clip = model.to("meta"), clip.to("meta")
        assert saved(lambda model=model, clip=clip: model(clip), model) == real


def test_recompute_gives_every_gradient() -> None:
    model, x = mlp(), torch.randn(3, 4, dtype=torch.float64)
    weight = model[1].weight
    grads = []
    for run in (lambda x: recompute(lambda x, w: (x @ w.T).tanh(), x, (weight,)), lambda x: (x @ weight.T).tanh()):
        leaf = x.clone().requires_grad_()
        grads.append(torch.autograd.grad(run(leaf).square().sum(), [leaf, weight]))
    torch.testing.assert_close(*grads)


def test_what_a_hook_sees_of_a_parameter_it_sees_once() -> None:
    ours, seen = PartialRows(mlp()), []
    ours.module[1].weight.register_hook(lambda gradient: seen.append(gradient))
    x = torch.randn(3, 4, dtype=torch.float64)
    ours(x, torch.tensor([True, False, True])).sum().backward()
    assert len(seen) == 1


def test_a_second_derivative_is_refused() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    y = partial_rows(lambda rows: rows.sin(), x, torch.tensor([True, False, True, True]))
    with pytest.raises(RuntimeError, match=r"no second derivative.*turn SBP off"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


def test_a_second_backward_and_changed_inputs_are_refused() -> None:
    def forward() -> tuple[Tensor, Tensor]:
        x = torch.randn(4, 3, requires_grad=True)
        middle = x * 1
        return middle, recompute(lambda x: x.sin(), middle).sum()

    _, y = forward()
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()
    middle, y = forward()
    with torch.no_grad():
        middle.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_without_a_graph_nothing_is_saved_and_values_are_the_same() -> None:
    model = SbpVideoSwin(SBP, **SETTINGS).eval()
    clip = torch.randn(1, 3, 4, 8, 8)
    with torch.no_grad():
        quiet = model(clip)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, model(clip).detach(), rtol=0, atol=0)


def test_frozen_parameters_get_no_gradient() -> None:
    model = SbpVideoSwin(SBP, frozen_stages=1, **SETTINGS).train()
    model(torch.randn(1, 3, 4, 8, 8)).sum().backward()
    assert all(each.grad is None for each in model.layers[0].parameters())
    assert all(each.grad is not None for each in model.layers[1].parameters())


@pytest.mark.parametrize("keep", ["none", "all windows alike", "per window"])
def test_attention_learns_from_kept_queries(keep: str) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(6, 2, 4, 3, dtype=torch.float64) for _ in range(3))
    bias, mask = torch.randn(2, 4, 4, dtype=torch.float64), torch.randn(3, 4, 4, dtype=torch.float64)
    rows = {
        "none": None,
        "all windows alike": torch.tensor([True, False, False, True]),
        "per window": torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 0, 0]]).bool(),
    }[keep]
    found = []
    for ours in (True, False):
        leaves = [each.clone().requires_grad_() for each in (q, k, v, bias)]
        if ours:
            y = kept_attention(*leaves, mask, 0.5, rows)
        else:
            y = attend(*leaves, mask, 0.5)
            if rows is not None:
                pattern = rows.expand(3, 4) if rows.ndim == 1 else rows
                y.register_hook(lambda gradient, p=pattern: gradient * p.repeat(2, 1)[:, None, :, None])
        y.square().sum().backward()
        found.append([y.detach(), *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(*found)


def test_windows_that_keep_different_numbers_of_queries_are_refused() -> None:
    q = torch.randn(2, 1, 3, 2)
    with pytest.raises(ValueError, match="windows keep 1 to 2 queries"):
        kept_attention(q, q, q, torch.zeros(1, 3, 3), None, 1.0, torch.tensor([[1, 0, 0], [1, 1, 0]]))


def test_a_mixing_step_of_ones_own() -> None:
    """Convolution over a row, learning at every third place."""
    x, weight = torch.randn(2, 1, 12, dtype=torch.float64), torch.randn(1, 1, 3, dtype=torch.float64)
    kept = torch.arange(0, 12, 3)

    def conv(x: Tensor, weight: Tensor) -> Tensor:
        return nn.functional.conv1d(x, weight, padding=1)

    found = []
    for ours in (True, False):
        leaves = [each.clone().requires_grad_() for each in (x, weight)]
        if ours:
            y = partial_backward(
                conv,
                lambda x, w: nn.functional.conv1d(nn.functional.pad(x, (1, 1)), w, stride=3),
                lambda dy: dy[..., kept],
                leaves[0],
                leaves[1:],
            )
        else:
            y = conv(*leaves)
            y.register_hook(lambda gradient: gradient * (torch.arange(12) % 3 == 0))
        y.square().sum().backward()
        found.append([y.detach(), *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(*found)


def test_low_precision_is_that_of_the_forward() -> None:
    torch.manual_seed(0)
    model, clip = SbpVideoSwin(SBP, **SETTINGS).train(), torch.randn(2, 3, 4, 8, 8)
    plain = VideoSwin(**SETTINGS).train()
    plain.load_state_dict(model.state_dict())
    mask = torch.tensor([False, True, False, True]).view(4, 1, 1, 1)
    for stage, flags in zip(plain.layers, SBP.with_gd, strict=True):
        for block, flag in zip(stage.blocks, flags, strict=True):
            if flag:
                block.register_forward_hook(lambda _m, _a, out: out.register_hook(lambda g: g * mask) and None)
    grads = []
    for each in (model, plain):
        with torch.autocast("cpu", torch.bfloat16):
            out = each(clip)
            # The same weights once more in the same context: no copy without a graph may be found.
            (out.float().square().sum() + each(clip).float().sum()).backward()
        grads.append(torch.cat([p.grad.flatten() for p in each.parameters()]))
    assert grads[0].dtype == torch.float32
    assert (grads[0] - grads[1]).norm() < 0.03 * grads[1].norm()


HEADS = Sbp(1, ((1, 1), (1, 0)), "random", keep_ratio=0.4, keep_residual=True, attention="head")
"""What is drawn at random in every way: cells, and heads of every block, perhaps none."""


@pytest.mark.parametrize("sbp", [SBP, Sbp(2, SBP.with_gd, attention="qkv"), HEADS], ids=["query", "qkv", "head"])
def test_compiled_models_give_the_same(sbp: Sbp) -> None:
    torch.manual_seed(0)
    settings, sbp = SETTINGS | {"depths": (1, 1)}, replace(sbp, with_gd=((1,), (0,)))
    model, clip = SbpVideoSwin(sbp, **settings).train(), torch.randn(1, 3, 4, 8, 8)
    twin = copy.deepcopy(model)
    twin.compile(backend="aot_eager")
    for each in (model, twin):
        torch.manual_seed(1)
        each(clip).square().sum().backward()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def _rank(rank: int, path: str, results: str, sbp: Sbp) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(SbpVideoSwin(sbp, **SETTINGS).train())
    clips = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        model.zero_grad()
        torch.manual_seed(rank)
        model(clips[rank : rank + 1]).square().sum().backward()
    if rank == 0:
        torch.save([each.grad for each in model.parameters()], results)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("sbp", [SBP, HEADS], ids=["query", "head"])
def test_ranks_average_their_gradients(tmp_path: Path, sbp: Sbp) -> None:
    results = tmp_path / "gradients.pt"  # Not a queue: whoever puts more than a pipe holds waits for a reader.
    mp.spawn(_rank, (str(tmp_path / "meet"), str(results), sbp), nprocs=2)
    torch.manual_seed(0)
    alone = SbpVideoSwin(sbp, **SETTINGS).train()
    clips = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for rank in range(2):
        torch.manual_seed(rank)
        (alone(clips[rank : rank + 1]).square().sum() / 2).backward()
    for mine, together in zip(alone.parameters(), torch.load(results), strict=True):
        torch.testing.assert_close(mine.grad, together, rtol=1e-4, atol=1e-4)
