"""Video Swin: windows of attention over time, height and width, shifted in every second block.

Source: Liu et al., Video Swin Transformer, arXiv 2106.13230. Parameter names are those of the published code.
Tokens are (B, D, H, W, C) throughout; only clips and features have channels first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad
from torch.utils.checkpoint import checkpoint

from trainers.backbones.windows3d import Size3, Windows, relative_position_index, shift_mask

Factors = tuple[Tensor | None, Tensor | None]
"""Drop path of a block: what its attention and its MLP branch are multiplied with, (B, 1, 1, 1, 1); None is 1."""


class WindowAttention(nn.Module):
    """Attention inside windows (B * nW, N, C) with a learnt bias by relative position.

    In windows smaller than the configured one the top left corner of the index is used; over space that is not the true
    offset, but what published weights were trained with.
    """

    def __init__(
        self,
        dim: int,
        window: Size3,
        num_heads: int,
        *,
        qkv_bias: bool,
        qk_scale: float | None,
        attn_drop: float,
        proj_drop: float,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        rows = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.relative_position_index: Tensor
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def bias(self, table: Tensor, num_tokens: int) -> Tensor:
        """(heads, N, N) of a bias table."""
        return table[self.relative_position_index[:num_tokens, :num_tokens]].permute(2, 0, 1)

    def core(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        """softmax(scale q k^T + bias + mask) v of (B * nW, heads, N, head dim)."""
        return attend(q, k, v, bias, mask, self.scale, self.attn_drop if self.training else None)

    def mix(self, qkv: Tensor, table: Tensor, mask: Tensor | None) -> Tensor:
        """Queries, keys and values side by side, (B * nW, N, 3C), to (B * nW, N, C)."""
        windows, num_tokens, width = qkv.shape
        q, k, v = qkv.view(windows, num_tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = self.core(q, k, v, self.bias(table, num_tokens), mask)
        return x.transpose(1, 2).reshape(windows, num_tokens, width // 3)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.proj_drop(self.proj(self.mix(self.qkv(x), self.relative_position_bias_table, mask)))


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    scale: float,
    dropout: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """softmax(scale q k^T + bias + mask) v: q (W, heads, Q, d), k and v (W, heads, N, d), the result like q.

    `bias` (heads, Q, N), or (nW, heads, Q, N) where windows differ; `mask` (nW, Q, N); W is a multiple of nW.
    """
    if dropout is None and not torch.is_grad_enabled():
        return _attend_in_parts(q, k, v, bias, mask, scale)
    shape = q.shape
    if mask is not None or bias.ndim == 4:
        # Windows of one grid side by side: sums in place on a view of them would copy every gradient.
        q, k, v = (each.unflatten(0, (-1, len(bias if mask is None else mask))) for each in (q, k, v))
    return _attend(q, k, v, bias, mask, scale, dropout).view(shape)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    scale: float,
    dropout: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    scores = (q * scale) @ k.transpose(-2, -1)
    scores += bias.to(scores.dtype)
    if mask is not None:
        scores += mask[:, None].to(scores.dtype)
    weights = scores.softmax(-1).to(v.dtype)
    return (weights if dropout is None else dropout(weights)) @ v


def _attend_in_parts(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The same without a graph, some windows at a time: scores of all would be several times the tokens."""
    grid = len(q) if mask is None and bias.ndim == 3 else len(bias if mask is None else mask)
    shape = q.shape
    q, k, v = (each.unflatten(0, (-1, grid)) for each in (q, k, v))
    out = torch.empty(q.shape, dtype=v.dtype, device=v.device)
    step = max(1, _most_values(q) // (len(q) * q.shape[2] * q.shape[3] * k.shape[3]))
    for i in range(0, grid, step):
        part = slice(i, i + step)
        own_bias, own_mask = bias if bias.ndim == 3 else bias[part], None if mask is None else mask[part]
        out[:, part] = _attend(q[:, part], k[:, part], v[:, part], own_bias, own_mask, scale)
    return out.view(shape)


def _most_values(x: Tensor) -> int:
    """How many values a step without a graph should make at once: what stays in a processor's cache, or 0.5 GB on a GPU."""
    return 2**21 if x.device.type == "cpu" else 2**27


class Mlp(nn.Module):
    """Two layers with the exact GELU between them."""

    def __init__(self, dim: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))

    def quietly(self, x: Tensor, norm: nn.Module) -> Tensor:
        """The MLP of the normed tokens (..., C) without a graph, some tokens at a time."""
        rows = x.reshape(-1, x.shape[-1])
        step = max(1, _most_values(x) // self.fc1.out_features)
        return torch.cat([self(norm(part)) for part in rows.split(step)]).view(x.shape)


class SwinBlock(nn.Module):
    """x + attention, then + MLP, each behind a layer norm and dropped as a whole with probability `drop_path`."""

    attention_type: type[WindowAttention] = WindowAttention

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: Size3,
        shift: Size3,
        *,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        drop: float,
        attn_drop: float,
        drop_path: float,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.window, self.shift, self.drop_path, self.checkpointing = window, shift, drop_path, checkpointing
        self.has_dropout = drop > 0 or attn_drop > 0
        self.norm1 = nn.LayerNorm(dim)
        self.attn = self.attention_type(
            dim, window, num_heads, qkv_bias=qkv_bias, qk_scale=qk_scale, attn_drop=attn_drop, proj_drop=drop
        )
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)
        self.register_load_state_dict_pre_hook(_take_either_name)

    def forward(self, x: Tensor) -> Tensor:
        windows = self.windows(x)
        factors = self.draw(x)
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(self.body, x, windows, factors, use_reentrant=False, preserve_rng_state=self.has_dropout)
        return self.body(x, windows, factors)

    def windows(self, x: Tensor) -> Windows:
        return Windows.fit(tuple(x.shape[1:4]), self.window, self.shift)  # type: ignore[arg-type]

    def draw(self, x: Tensor) -> Factors:
        """Drop path factors of both branches, attention first, as the published code draws them."""
        if not self.training or not self.drop_path:
            return None, None
        keep = 1 - self.drop_path
        shape = (len(x), 1, 1, 1, 1)
        first, second = ((keep + torch.rand(shape, dtype=x.dtype, device=x.device)).floor_() / keep for _ in range(2))
        return first, second

    def body(self, x: Tensor, windows: Windows, factors: Factors) -> Tensor:
        mask = shift_mask(windows, x.device)
        x = add_branch(x, windows.reverse(self.attn(windows.partition(self.norm1(x)), mask)), factors[0])
        mlp = self.mlp(self.norm2(x)) if torch.is_grad_enabled() else self.mlp.quietly(x, self.norm2)
        return add_branch(x, mlp, factors[1])


def add_branch(x: Tensor, branch: Tensor, factor: Tensor | None) -> Tensor:
    return x + (branch if factor is None else branch * factor)


def _take_either_name(_block: nn.Module, state: dict[str, Any], prefix: str, *_rest: object) -> None:
    """The published SBP code calls `norm2` `mlp.norm`; both load."""
    for leaf in ("weight", "bias"):
        if f"{prefix}mlp.norm.{leaf}" in state:
            state[f"{prefix}norm2.{leaf}"] = state.pop(f"{prefix}mlp.norm.{leaf}")


class PatchEmbed(nn.Module):
    """Clips (B, 3, T, H, W), padded at their ends to whole patches, to tokens (B, D, H', W', C): one matrix for all patches."""

    def __init__(self, patch: Size3, in_channels: int, dim: int, norm: bool) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(in_channels, dim, patch, stride=patch)
        self.norm = nn.LayerNorm(dim) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        (pt, ph, pw), (batch, channels, t, h, w) = self.patch, x.shape
        if t % pt or h % ph or w % pw:
            x = pad(x, [0, -w % pw, 0, -h % ph, 0, -t % pt])
            t, h, w = x.shape[2:]
        # Patches do not overlap, so the convolution is a matrix product, and its result lies with channels last.
        x = x.reshape(batch, channels, t // pt, pt, h // ph, ph, w // pw, pw)
        x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        x = linear(x, self.proj.weight.flatten(1), self.proj.bias)
        return x if self.norm is None else self.norm(x)


class PatchMerging(nn.Module):
    """Tokens (B, D, H, W, C) to (B, D, H/2, W/2, 2C): four neighbours side by side, normed, projected."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(side_by_side(x)))


def side_by_side(x: Tensor) -> Tensor:
    """(B, D, H, W, C) to (B, D, H/2, W/2, 4C) in the order (0,0), (1,0), (0,1), (1,1); odd sides are padded at the end."""
    height, width = x.shape[2:4]
    if height % 2 or width % 2:
        x = pad(x, [0, 0, 0, width % 2, 0, height % 2])
    return torch.cat([x[:, :, i::2, j::2] for j in range(2) for i in range(2)], -1)


class Stage(nn.Module):
    """Blocks of one resolution, and the merging that leads to the next one."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, *beside: Any) -> Tensor:
        """`beside` goes to every block."""
        for block in self.blocks:
            x = block(x, *beside)
        return x if self.downsample is None else self.downsample(x)


class VideoSwin(nn.Module):
    """Clips (B, 3, T, H, W) to features (B, `num_features`, T/2, H/32, W/32) with the published settings.

    `frozen_stages`: -1 none, 0 the patch embedding, n it and the first n stages. `init`: `trunc_normal` (0.02, as
    intended), or `published`, where only bias tables get it because the published code never called the rest.
    Raises: ValueError for settings that do not go together.
    """

    def __init__(
        self,
        *,
        patch_size: Size3 = (4, 4, 4),
        in_channels: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: Size3 = (2, 7, 7),
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        patch_norm: bool = False,
        frozen_stages: int = -1,
        checkpointing: bool = False,
        init: Literal["trunc_normal", "published"] = "trunc_normal",
    ) -> None:
        super().__init__()
        if len(depths) != len(num_heads):
            raise ValueError(f"depths {tuple(depths)} and num_heads {tuple(num_heads)} are not of one length")
        for i, heads in enumerate(num_heads):
            if embed_dim * 2**i % heads:
                raise ValueError(f"stage {i} has {embed_dim * 2**i} channels, which {heads} heads do not divide")
        if not -1 <= frozen_stages <= len(depths):
            raise ValueError(f"frozen_stages is {frozen_stages}; it is -1 (none) to {len(depths)} (all)")
        self.window_size: Size3 = tuple(window_size)  # type: ignore[assignment]
        self.frozen_stages = frozen_stages
        self.num_features = embed_dim * 2 ** (len(depths) - 1)
        self.patch_embed = PatchEmbed(tuple(patch_size), in_channels, embed_dim, patch_norm)  # type: ignore[arg-type]
        self.pos_drop = nn.Dropout(drop_rate)
        rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        self.layers = nn.ModuleList()
        for i, depth in enumerate(depths):
            common = {
                "mlp_ratio": mlp_ratio,
                "qkv_bias": qkv_bias,
                "qk_scale": qk_scale,
                "drop": drop_rate,
                "attn_drop": attn_drop_rate,
                "checkpointing": checkpointing,
            }
            blocks = []
            for j in range(depth):
                shift: Size3 = tuple(size // 2 if j % 2 else 0 for size in self.window_size)  # type: ignore[assignment]
                rate = rates[sum(depths[:i]) + j]
                blocks.append(
                    self.make_block(
                        (i, j), embed_dim * 2**i, num_heads[i], self.window_size, shift, drop_path=rate, **common
                    )
                )
            last = i == len(depths) - 1
            self.layers.append(Stage(blocks, None if last else self.make_merging(embed_dim * 2**i)))
        self.norm = nn.LayerNorm(self.num_features)
        if init == "trunc_normal":
            self.apply(_init_weights)
        self.train()

    def make_block(self, place: tuple[int, int], *args: Any, **kwargs: Any) -> nn.Module:
        """Block `place` (stage, block); another kind of block overrides this."""
        return SwinBlock(*args, **kwargs)

    def make_merging(self, dim: int) -> nn.Module:
        return PatchMerging(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pos_drop(self.patch_embed(x))
        beside = self.per_forward()
        for stage in self.layers:
            x = stage(x, *beside)
        return self.norm(x).permute(0, 4, 1, 2, 3)

    def per_forward(self) -> tuple[Any, ...]:
        """What every block of one forward is given besides its tokens."""
        return ()

    def train(self, mode: bool = True) -> VideoSwin:
        super().train(mode)
        frozen: list[nn.Module] = [self.patch_embed] if self.frozen_stages >= 0 else []
        if self.frozen_stages >= 1:
            frozen += [self.pos_drop, *self.layers[: self.frozen_stages]]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)
        return self


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


SIZES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.1},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.1},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "drop_path_rate": 0.2},
}
"""Published sizes; all have patches of 2 x 4 x 4, windows of 8 x 7 x 7 and a norm after the patch embedding."""


def swin_settings(size: str, **changes: Any) -> dict[str, Any]:
    """Constructor arguments of a published size, with changes. Raises: ValueError for a size that does not exist."""
    if size not in SIZES:
        raise ValueError(f"there is no Video Swin {size!r}; there are {', '.join(SIZES)}")
    common: dict[str, Any] = {"patch_size": (2, 4, 4), "window_size": (8, 7, 7), "patch_norm": True}
    return common | dict(SIZES[size]) | changes
