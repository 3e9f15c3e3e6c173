"""SBP against an independent formulation: plain Video Swin whose gradients are masked by hooks, over random settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainers.backbones.video_swin import SwinBlock, VideoSwin
from trainers.backbones.windows3d import Windows
from trainers.sbp.swin import Sbp, SbpVideoSwin


@dataclass(frozen=True)
class Drawn:
    """One random setting."""

    settings: dict[str, object]
    sbp: Sbp
    sizes: tuple[int, int, int]
    batch: int
    training: bool
    seed: int


def draw(seed: int) -> Drawn:
    rng = np.random.default_rng(seed)
    version = ("v1", "v2", "grid")[seed % 3]
    downsample = 2 if version == "grid" else int(rng.choice((2, 3, 4)))
    window = (int(rng.choice((2, 3, 4))), int(rng.choice((2, 3))), int(rng.choice((2, 3))))
    depths = (2, 2)
    frames = downsample * int(rng.integers(1, 4))
    # A board of 2 x 2 cells in the first of two stages, so sides are even there; v1 and grid take any.
    side = [int(rng.integers(2, 6)) * (2 if version == "v2" else 1) for _ in range(2)]
    flags = [[int(rng.random() < 0.8) for _ in range(depth)] for depth in depths]
    flags[0][0] = 1
    settings: dict[str, object] = {
        "patch_size": (1, 1, 1), "embed_dim": 4, "depths": depths, "num_heads": (1, 2), "window_size": window,
        "patch_norm": bool(rng.random() < 0.5), "qkv_bias": bool(rng.random() < 0.7),
        "qk_scale": float(rng.choice((0, 0.3))) or None, "mlp_ratio": float(rng.choice((1, 2))),
        "drop_path_rate": float(rng.choice((0, 0.4))), "checkpointing": bool(rng.random() < 0.3),
    }  # fmt: skip
    faithful = version == "v2" and bool(rng.random() < 0.4)
    random_offset = bool(rng.random() < 0.3)
    keep_residual = not faithful and bool(rng.random() < 0.3)
    sbp = Sbp(downsample, flags, version, faithful, random_offset, keep_residual)
    return Drawn(settings, sbp, (frames, *side), int(rng.integers(1, 4)), bool(rng.random() < 0.8), seed)


def masked(gradient: Tensor, mask: Tensor) -> Tensor:
    return gradient * mask.to(gradient.dtype)


def hook_up(plain: VideoSwin, sbp: Sbp, offset: int | None) -> None:
    """Mask the gradients of `plain` by hooks on what its modules give: nothing of our own operations is used."""
    last = max(i for i, flags in enumerate(sbp.with_gd) if any(flags))
    for i, stage in enumerate(plain.layers):
        cell = 2 ** (last - i if sbp.version == "grid" else len(plain.layers) - 1 - i)
        for block, flag in zip(stage.blocks, sbp.with_gd[i], strict=True):
            if flag:
                block.register_forward_hook(_masking(block, sbp, cell, offset))


def mask_of(sizes: tuple[int, ...], sbp: Sbp, cell: int, offset: int | None) -> Tensor:
    """The mask by its definition, one token at a time."""
    d = sbp.downsample
    mask = torch.zeros(sizes)
    for t in range(sizes[0]):
        for h in range(sizes[1]):
            for w in range(sizes[2]):
                if sbp.version == "v1":
                    mask[t, h, w] = t % d == (d // 2 if offset is None else offset)
                else:
                    place = (t if sbp.version == "v2" else 0) + h // cell + w // cell
                    mask[t, h, w] = place % d == (offset or 0)
    return mask


def _masking(block: SwinBlock, sbp: Sbp, cell: int, offset: int | None) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if not sbp.keep_residual:
            mask = mask_of(tuple(output.shape[1:4]), sbp, cell, offset)
            output.register_hook(lambda gradient: masked(gradient, mask[..., None]))

    if sbp.keep_residual:

        def on_mlp(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> None:
            mask = mask_of(tuple(output.shape[1:4]), sbp, cell, offset)
            output.register_hook(lambda gradient: masked(gradient, mask[..., None]))

        block.mlp.register_forward_hook(on_mlp)
    original = block.body

    def body(x: Tensor, windows: Windows, factors: tuple[Tensor | None, Tensor | None]) -> Tensor:
        mask = mask_of(windows.sizes, sbp, cell, offset)
        if sbp.keep_residual:
            inside = windows.partition(mask[None, ..., None])
            handle = block.attn.register_forward_hook(
                lambda _module, _args, output: (
                    output.register_hook(
                        lambda gradient: masked(gradient, inside.repeat(len(gradient) // len(inside), 1, 1))
                    )
                    and None
                )
            )
        elif sbp.faithful and any(windows.shift):
            still = Windows(windows.sizes, windows.window, (0, 0, 0))
            wrong = still.partition(mask.roll(-windows.shift[0], 1)[None, ..., None])[:, None]
            core = type(block.attn).core

            def wronged(*args: Tensor) -> Tensor:
                out = core(block.attn, *args)
                out.register_hook(lambda gradient: masked(gradient, wrong.repeat(len(gradient) // len(wrong), 1, 1, 1)))
                return out

            block.attn.core = wronged  # type: ignore[method-assign]
        result = original(x, windows, factors)
        if sbp.keep_residual:
            handle.remove()
        return result

    block.body = body  # type: ignore[method-assign]
    return hook


def gradients(model: nn.Module, clip: Tensor, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    clip = clip.clone().requires_grad_()
    torch.manual_seed(seed)
    out = model(clip)
    weight = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    (out * weight).sum().backward()
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    return out.detach(), found | {"clip": clip.grad}


def _draw_too(downsample: int) -> None:
    """The draw of the offset, so that what is drawn after it is the same."""
    torch.randint(downsample, ())


@pytest.mark.parametrize("seed", range(36))
def test_gradients_are_those_of_masking_hooks(seed: int) -> None:
    drawn = draw(seed)
    torch.manual_seed(seed)
    ours = SbpVideoSwin(drawn.sbp, **drawn.settings).double().train(drawn.training)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    plain = VideoSwin(**(drawn.settings | {"checkpointing": False})).double().train(drawn.training)
    plain.load_state_dict(ours.state_dict())
    clip = torch.randn(drawn.batch, 3, *drawn.sizes, dtype=torch.float64)
    offset = None
    if drawn.sbp.random_offset and drawn.training:
        torch.manual_seed(seed)
        offset = int(torch.randint(drawn.sbp.downsample, ()))
        plain.register_forward_pre_hook(lambda *_: _draw_too(drawn.sbp.downsample))
    hook_up(plain, drawn.sbp, offset)
    values, found = gradients(ours, clip, seed)
    expected_values, expected = gradients(plain, clip, seed)
    torch.testing.assert_close(values, expected_values)
    for name, gradient in expected.items():
        error = (found[name] - gradient).norm()
        assert error <= 1e-5 * gradient.norm() + 1e-12, f"{name}: off by {error} of {gradient.norm()}"
