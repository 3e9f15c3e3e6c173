"""SBP's memory and speed: Swin-T as published, with the blocks that the paper trains with SBP.

    python -m tests.benchmarks.bench_sbp memory    bytes that autograd holds at the end of the forward, 32 x 224 x 224
    python -m tests.benchmarks.bench_sbp time      seconds of a step, 16 x 224 x 224, two threads, in turns
    python -m tests.benchmarks.bench_sbp gpu       peak memory and clips per second on a GPU, and the longest clip; skipped without one

Bytes are those of every storage that a saved-tensor hook sees, once, parameters and buffers excluded. "published formula" is the
network with its attention and its patch embedding written out as the published code has them: a convolution, and every
sum into a tensor of its own.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

# As the command line does: with others on the cores, threads that spin at barriers cost several times the step.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch
from torch import Tensor, nn

from tests.benchmarks._common import write_result
from trainers.backbones.video_swin import PatchEmbed, VideoSwin, WindowAttention, swin_settings
from trainers.sbp.parts import Learning
from trainers.sbp.recognizer import SwinRecognizer
from trainers.sbp.spatial import build_spatial
from trainers.sbp.swin import WITH_GD, Sbp, build_swin

CLASSES = 400
LIMITS = {"v1/2": 0.30, "v1/4": 0.22, "v1/8": 0.18, "v2/2": 0.33, "v1/4 checkpointing": 0.12}
"""Most that a setting may hold, of plain."""


class PublishedAttention(WindowAttention):
    """The formula written out."""

    def core(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        scores = (q * self.scale) @ k.transpose(-2, -1)
        scores = scores + bias.unsqueeze(0)
        if mask is not None:
            windows, heads, n, _ = scores.shape
            grids = scores.view(windows // len(mask), len(mask), heads, n, n) + mask.unsqueeze(1).unsqueeze(0)
            scores = grids.view(-1, heads, n, n)
        return self.attn_drop(scores.softmax(-1)) @ v


class PublishedPatchEmbed(PatchEmbed):
    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x).permute(0, 2, 3, 4, 1)
        return x if self.norm is None else self.norm(x)


def build(name: str, size: str = "tiny") -> SwinRecognizer:
    """`plain`, `published formula`, or version/downsample; with ` qkv` and ` checkpointing` after it where wanted."""
    settings = swin_settings(size, drop_path_rate=0.0, checkpointing=name.endswith(" checkpointing"))
    name = name.removesuffix(" checkpointing")
    torch.manual_seed(0)
    if name in ("plain", "published formula"):
        model = SwinRecognizer(VideoSwin(**settings), CLASSES)
        if name != "plain":
            for module in model.modules():
                if isinstance(module, WindowAttention):
                    module.__class__ = PublishedAttention
                elif isinstance(module, PatchEmbed):
                    module.__class__ = PublishedPatchEmbed
        return model
    attention: Learning = "qkv" if name.endswith(" qkv") else "query"
    version, _, downsample = name.removesuffix(" qkv").partition("/")
    sbp = Sbp(int(downsample), WITH_GD[size], version, attention=attention)  # type: ignore[arg-type]
    return SwinRecognizer(build_swin(sbp, **settings), CLASSES)


def saved_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes of all storages that are saved for the backward pass, parameters and buffers excluded."""
    own = {each.untyped_storage()._cdata for each in [*model.parameters(), *model.buffers()]}
    held: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            held[storage._cdata] = storage.nbytes(), tensor.detach()  # held, so that the number is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(size for size, _ in held.values())


def held(name: str, size: str, frames: int) -> int:
    """Bytes of a setting for one clip of so many frames at 224 x 224: counted without computing, the same as with."""
    with torch.device("meta"):
        model, clip = build(name, size).train(), torch.empty(1, 3, frames, 224, 224)
    return saved_bytes(model, lambda: model(clip))


def memory() -> dict[str, Any]:
    names = ["plain", "published formula", "v1/2", "v1/4", "v1/8", "v2/2", "v1/2 qkv", "v1/4 qkv"]
    names += ["v1/4 checkpointing", "v1/4 qkv checkpointing", "plain checkpointing"]
    found = {}
    for name in names:
        found[name] = held(name, "tiny", 32)
        print(f"{name:20} {found[name] / 2**20:8.1f} MiB  {found[name] / found['plain']:.3f} of plain", flush=True)
    end_to_end = partial_feedback_bytes()
    ratio = end_to_end["rate 0.2"] / end_to_end["all frames"]
    print(f"end to end, backbone at rate 0.2: {ratio:.3f} of all frames")
    shares = {name: round(size / found["plain"], 4) for name, size in found.items()}
    missed = {name: shares[name] for name, limit in LIMITS.items() if shares[name] > limit}
    long = {
        str(frames): {name: held(name, "base", frames) for name in ("plain", "v1/4", "v1/4 checkpointing")}
        for frames in (64, 256, 1024)
    }
    return {
        "clip": [1, 3, 32, 224, 224],
        "bytes": found,
        "of_plain": shares,
        "limits": LIMITS,
        "missed": missed,
        "end_to_end_bytes": end_to_end,
        "end_to_end_share": round(ratio, 4),
        "swin_base_bytes_by_frames": long,
    }


def partial_feedback_bytes() -> dict[str, int]:
    """What the backbone of the end-to-end detector holds: ResNet-50, 160 frames of 224 x 224, without computing anything."""
    from trainers.sbp.feedback import partial_features

    with torch.device("meta"):
        model = build_spatial("resnet50").train()
        frames = torch.empty(1, 160, 3, 224, 224)
    return {
        "all frames": saved_bytes(model, lambda: model(frames)),
        "rate 0.2": saved_bytes(model, lambda: partial_features(model, frames, 0.2)),
    }


def step_time(rounds: int) -> dict[str, Any]:
    """In turns, the first round not counted. Beside the clock, seconds of the processors: those of others do not count."""
    torch.set_num_threads(2)
    clip = torch.randn(1, 3, 16, 224, 224)
    names = ["plain", "published formula", "v1/4", "v1/2", "v1/8"]
    models = {name: build(name).train() for name in names}
    wall: dict[str, list[float]] = {name: [] for name in names}
    busy: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds + 1):
        for name, model in models.items():
            started, started_busy = time.perf_counter(), time.process_time()
            model(clip).logsumexp(1).sum().backward()
            taken, taken_busy = time.perf_counter() - started, time.process_time() - started_busy
            model.zero_grad(set_to_none=True)
            if i:
                wall[name].append(round(taken, 3))
                busy[name].append(round(taken_busy, 3))
            print(f"{i} {name:20} {taken:.2f} s, processors {taken_busy:.2f} s", flush=True)
    found: dict[str, Any] = {"clip": list(clip.shape), "threads": 2, "rounds": rounds}
    for kind, seconds in (("wall", wall), ("processors", busy)):
        middle = {name: statistics.median(each) for name, each in seconds.items()}
        found[kind] = {
            "seconds": seconds,
            "median_s": middle,
            "of_plain": {name: round(value / middle["plain"], 3) for name, value in middle.items()},
            "plain_of_published_formula": round(middle["plain"] / middle["published formula"], 3),
        }
    return found | {"limits": {"v1/4 of plain": 0.85, "plain of published formula": 1.0}}


def gpu(size: str, batch: int) -> dict[str, Any]:
    """bf16, clips of 32 x 224 x 224."""
    device = torch.device("cuda")
    names = ["plain", "plain checkpointing", "v1/2", "v1/4", "v1/8", "v1/4 checkpointing"]
    found: dict[str, Any] = {}
    for name in names:
        model = build(name, size).to(device).train()
        peak, rate = _gpu_steps(model, torch.randn(batch, 3, 32, 224, 224, device=device))
        longest = _longest(model)
        found[name] = {"peak_gib": round(peak / 2**30, 2), "clips_per_s": round(rate, 2), "longest_clip": longest}
        print(f"{size} {name:20} {found[name]}", flush=True)
        del model
        gc.collect()
        torch.cuda.empty_cache()
    return {"batch": batch, "settings": found}


def _gpu_step(model: nn.Module, clips: Tensor) -> None:
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = model(clips).float().logsumexp(1).sum()
    loss.backward()
    model.zero_grad(set_to_none=True)


def _gpu_steps(model: nn.Module, clips: Tensor, steps: int = 5) -> tuple[int, float]:
    """Peak bytes, and clips per second."""
    for _ in range(2):
        _gpu_step(model, clips)
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(steps):
        _gpu_step(model, clips)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(), steps * len(clips) / (time.perf_counter() - started)


def _longest(model: nn.Module) -> int:
    """Frames of the longest clip, a multiple of 64, that one step fits."""
    longest, frames = 0, 64
    while frames <= 8192:
        try:
            _gpu_step(model, torch.randn(1, 3, frames, 224, 224, device="cuda"))
        except torch.OutOfMemoryError:
            break
        finally:
            model.zero_grad(set_to_none=True)
            gc.collect()
            torch.cuda.empty_cache()
        longest, frames = frames, frames * 2
    return longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("memory", "time", "gpu"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args()
    if given.what == "memory":
        write_result("sbp_memory", memory())
    elif given.what == "time":
        write_result("sbp_time", step_time(given.rounds))
    elif not torch.cuda.is_available():
        print("skipped: there is no CUDA device here")
    else:
        write_result("sbp_gpu", {size: gpu(size, given.batch) for size in ("tiny", "base")})


if __name__ == "__main__":
    main()
