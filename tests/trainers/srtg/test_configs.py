"""Every recipe of SRTG: as published on paper, and as a small copy that reads clips and takes a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import configs
from ingest.annotations.labels_csv import read_labels_csv
from ingest.convert import convert
from ingest.demo import make_trimmed
from ingest.options import ConvertOptions
from ingest.plan import plan_labels
from trainers.config import load
from trainers.data import clip_spec, make_loader, shape_plan
from trainers.engine.optimizers import build_optimizer, set_lr
from trainers.srtg.method import MethodConfig, create
from trainers.srtg.network import build

FOLDER = Path(configs.__path__[0]) / "srtg"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml") if file.stem != "demo")

CLIPS = {
    "hacs": (200, 500_000),
    "mit": (339, 800_000),
    "kinetics200": (200, 80_000),
    "kinetics400": (400, 240_000),
    "kinetics600": (600, 390_000),
    "kinetics700": (700, 530_000),
    "ucf101": (101, 9_537),
    "hmdb51": (51, 3_570),
    "diving48": (48, 15_000),
}
"""Classes and training clips, about."""

PUBLISHED = {
    # clips per batch, frames, size, intervals in training and test, rate, milestones, epochs; from the training scripts
    "hacs": (48, 16, 284, (1, 2), (2,), 0.1, (40, 60, 75, 90), 120),
    "mit": (48, 16, 284, (3, 4), (3,), 0.1, (25, 50, 70), 110),
    "kinetics200": (32, 16, 284, (4, 5, 6), (5,), 0.05, (40, 70, 95), 130),
    "kinetics400": (32, 16, 284, (4, 5, 6), (5,), 0.05, (40, 70, 95), 130),
    "kinetics600": (32, 16, 284, (4, 5, 6), (5,), 0.05, (40, 70, 95), 130),
    "kinetics700": (32, 16, 284, (4, 5, 6), (5,), 0.05, (40, 70, 95), 130),
    "ucf101": (32, 16, 256, (2,), None, 0.1, (15, 30, 40), 100),
    "hmdb51": (32, 16, 256, (2,), None, 0.1, (15, 30, 40), 100),
    "diving48": (32, 16, 256, (2,), None, 0.1, (15, 30, 40), 100),
}


def _config(name: str, *overrides: str) -> MethodConfig:
    return load(FOLDER / f"{name}.yaml", overrides, MethodConfig)


def _data_set(name: str) -> str:
    return next(key for key in CLIPS if name.startswith(key))


def test_every_data_set_has_its_recipes() -> None:
    assert set(PUBLISHED) <= set(NAMES)
    large = {name for name in PUBLISHED if _config(name).data.size == 284}
    assert {f"{name}_fixed" for name in large} <= set(NAMES)
    assert {f"{name}_{kind}" for name in set(PUBLISHED) - large for kind in ("cycles", "finetune")} <= set(NAMES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_recipes_are_the_published_ones(name: str) -> None:
    config = _config(name)
    data, optimizer = config.data, config.optimizer
    found = (data.batch_size, data.num_frames, data.size, data.intervals, data.eval_intervals)
    assert (*found, optimizer.lr, config.schedule.milestones, config.train.epochs) == PUBLISHED[name]
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.9, True, 1e-4)
    assert optimizer.reference_batch_size == data.batch_size
    assert (config.multigrid.name == "srtg") == (data.size == 284)
    assert data.colour == "BGR"
    assert [round(255 * each) for each in data.mean] == [124, 117, 104]
    assert clip_spec(data, "train").augment is not None


@pytest.mark.parametrize("name", NAMES)
def test_networks_and_schedules_at_full_size(name: str) -> None:
    """The network on the meta device; the shapes of all batches of the run, each cycle on and off."""
    config = _config(name)
    num_classes, num_clips = CLIPS[_data_set(name)]
    with torch.device("meta"):
        model = build(config.model.name, num_classes, gates=config.model.gates, place=config.model.place)
    assert sum(parameter.numel() for parameter in model.parameters()) > 1e7
    assert clip_spec(config.data, "val").num_views == 1
    plan = shape_plan(config, num_clips)
    if config.multigrid.name == "off":
        assert plan is None
        return
    assert plan is not None
    full = max(plan.phases[-1].cycle, key=lambda shape: shape.num_frames * shape.height)
    assert (full.num_frames, full.height) == (config.data.num_frames, config.data.size)
    if config.multigrid.name == "srtg":
        assert plan.num_epochs == config.train.epochs
        drops = [phase.first for phase in plan.phases[1:]]
        assert drops == list(config.schedule.milestones)
        assert plan.num_batches(0) < 0.1 * num_clips / config.data.batch_size
    for long, short in ((True, False), (False, True), (False, False)):
        switches = (f"multigrid.long={long}", f"multigrid.short={short}")
        other = shape_plan(_config(name, *switches), num_clips)
        assert other is not None
        sizes = {(shape.num_frames, shape.height) for phase in other.phases for shape in phase.cycle}
        assert (len(sizes) == 1) == (not long and not short)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 80 training videos of half a second: what the cycles of a batch of one clip need."""
    folder = tmp_path_factory.mktemp("videos")
    made = make_trimmed(folder / "source", num_videos=112, size=(64, 48), seconds=(0.3, 0.5), seed=1)
    plan = plan_labels(folder / "source" / "videos", read_labels_csv(made.annotations))
    assert not convert(plan, folder / "root", ConvertOptions((40,)), num_workers=2).failures
    return folder / "root"


def _small(name: str, root: Path) -> MethodConfig:
    """The recipe with everything that decides its course, on small clips."""
    size, num_clips = 64 if "mtnet" in name else 32, 1 if _config(name).multigrid.name == "srtg" else 2
    return _config(
        name,
        f"data.root={root}",
        f"data.batch_size={num_clips}",
        f"optimizer.reference_batch_size={num_clips}",
        "data.num_frames=8",
        f"data.size={size}",
        f"data.short_side=[{size + 4},{size + 8}]",
        f"data.eval_size={size}",
        f"data.eval_short_side={size + 4}",
        "data.workers=threads",
        "data.num_workers=1",
        "model.width=8",
        "train.precision=32-true",
        "train.accelerator=cpu",
    )


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("kinetics") or "400" in name])
def test_a_small_copy_reads_clips_and_takes_a_step(name: str, videos: Path) -> None:
    config = _small(name, videos)
    cpu = torch.device("cpu")
    with make_loader(config, "train") as loader:
        method = create(config, len(loader.dataset.class_names))
        method.stage_changed(loader.batch_size)
        (groups,) = method.param_groups().values()
        optimizer: Any = build_optimizer(config.optimizer, groups, config.optimizer.lr)
        batch = next(iter(loader))
        losses = method.losses(batch, cpu)
        losses.total.backward()
        set_lr(optimizer, config.optimizer.lr * batch.lr_factor)
        before = method.models["model"].fc.weight.clone()
        optimizer.step()
        assert losses.total.isfinite()
        assert not torch.equal(before, method.models["model"].fc.weight)
        rates = {group["lr"] for group in optimizer.param_groups}
        shares = (0.6, 0.5, 1.0) if name.endswith("finetune") else (batch.lr_factor,)
        assert sorted(rates) == pytest.approx(sorted(config.optimizer.lr * share for share in shares))
    with make_loader(config, "val") as loader:
        method.models["model"].eval()
        assert method.predict(next(iter(loader)), cpu).shape == (config.data.batch_size, 8)
