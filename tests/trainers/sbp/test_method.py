"""The method and its recipes: what they build, what they refuse, and a short training on synthetic videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import configs
from ingest.annotations.labels_csv import read_labels_csv
from ingest.annotations.read import read_annotations
from ingest.convert import convert
from ingest.errors import ClipmillError
from ingest.options import ConvertOptions
from ingest.plan import plan_labels
from ingest.stores.frames_db import plan_levels
from loaders.clips import plan_clip
from trainers.config import check, load
from trainers.data import clip_spec
from trainers.dry_run import plan_run
from trainers.engine.optimizers import build_optimizer
from trainers.sbp.method import MethodConfig, create, load_published
from trainers.sbp.swin import SbpVideoSwin
from trainers.session import run_test, run_training

RECIPES = sorted((Path(configs.__path__[0]) / "sbp").glob("k400-*.yaml"))

TINY: dict[str, Any] = {
    "method": "sbp",
    "data": {"root": "ROOT", "batch_size": 4, "workers": "threads", "num_workers": 2, "sampling": "dense",
             "num_frames": 8, "intervals": [1], "size": 32, "short_side": [36, 40], "crops": "diagonal",
             "test_views": [2, 3]},
    "model": {"embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4, 4], "drop_path_rate": 0.1},
    "sbp": {"gd_downsample": 2, "with_gd": [[1, 1], [1, 0]]},
    "optimizer": {"name": "adamw", "lr": 1e-3},
    "train": {"epochs": 1, "accelerator": "cpu", "log_every": 2, "tensorboard": False, "report": False},
}  # fmt: skip


def tiny(**changes: dict[str, Any]) -> MethodConfig:
    return check({key: value | changes.get(key, {}) if isinstance(value, dict) else value for key, value in TINY.items()},
                 MethodConfig, "test")  # fmt: skip


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("downsample", [1, 2, 4, 8])
def test_recipes_build_and_run_their_published_clip(path: Path, downsample: int) -> None:
    config = load(path, [f"sbp.gd_downsample={downsample}"], MethodConfig)
    with torch.device("meta"):
        model = create(config, 400).models["model"]
        logits = model(torch.empty(1, 3, config.data.num_frames, config.data.size, config.data.size))
    assert logits.shape == (1, 400)
    assert isinstance(model.backbone, SbpVideoSwin) == (downsample > 1)
    count = sum(each.numel() for each in model.parameters())
    # Video Swin's published 28.2 and 88.1 million with 400 classes.
    assert round(count / 1e6, 1) == {"tiny": 28.2, "base": 88.0}[config.model.size]


def test_the_twelve_views_are_the_published_ones() -> None:
    """Four clips that begin every (L - 64) // 4 frames, each at the top left, in the middle, at the bottom right."""
    spec = clip_spec(load(RECIPES[0], [], MethodConfig).data, "test")
    plans = [plan_clip(spec, item, 303, plan_levels(339, 256, (256,)), seed=0, epoch=0, k=0) for item in range(12)]
    assert [plan.frames.tolist() for plan in plans] == [
        list(range(clip * ((303 - 64) // 4), clip * ((303 - 64) // 4) + 64, 2)) for clip in range(4) for _ in range(3)
    ]
    assert {plan.scaled for plan in plans} == {(256, 339)}
    assert [plan.offset for plan in plans] == [(0, 0), (16, 57), (32, 115)] * 4  # 57.5 is rounded down
    assert not any(plan.mirror for plan in plans)


def test_groups_are_the_published_ones() -> None:
    method = create(tiny(), 5)
    groups = {group["name"]: group for group in method.param_groups()["model"]}
    assert sum(len(group["params"]) for group in groups.values()) == len(list(method.models["model"].parameters()))
    assert {group["params"][0].shape[1] for group in [groups["bias_tables"]]} == {2}
    optimizer = build_optimizer(tiny().optimizer, list(groups.values()), 1.0)
    found = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert found == [(1.0, 0.0), (0.1, 1e-4), (1.0, 1e-4)]


def test_frozen_stages_are_not_in_the_optimizer() -> None:
    method = create(tiny(model={"frozen_stages": 1}), 5)
    trained = {id(each) for group in method.param_groups()["model"] for each in group["params"]}
    frozen = [
        *method.models["model"].backbone.patch_embed.parameters(),
        *method.models["model"].backbone.layers[0].parameters(),
    ]
    assert not trained & {id(each) for each in frozen}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sbp": {"gd_downsample": 3}}, "gd_downsample 3 does not divide the 4 moments that 8 frames make"),
        ({"sbp": {"with_gd": None}}, "no published flags go with these depths"),
        ({"sbp": {"with_gd": [[1, 1], [1]]}}, r"flags for \[2, 1\] blocks per stage, the network has \[2, 2\]"),
        ({"sbp": {"faithful": True}}, "faithful repeats a defect of version v2"),
        ({"sbp": {"keep_ratio": 0.75, "version": "grid"}}, "say the same twice"),
        ({"sbp": {"attention": "head"}}, "set keep_residual"),
        ({"model": {"drop_rate": 0.1}}, "set both dropout rates to 0"),
        ({"model": {"num_heads": [3, 4]}}, "8 channels, which 3 heads do not divide"),
        ({"model": {"frozen_stages": 7}}, r"frozen_stages is 7"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ClipmillError, match=message):
        create(tiny(**changes), 5)


def test_missing_image_weights_stop_the_training(tmp_path: Path) -> None:
    method = create(tiny(model={"pretrained": str(tmp_path / "none.pth")}), 5)
    with pytest.raises(ClipmillError, match=r"none\.pth cannot be read"):
        method.param_groups()


def test_given_weights_stand_in_for_image_weights(tmp_path: Path) -> None:
    method = create(tiny(model={"pretrained": str(tmp_path / "none.pth")}), 5)
    method.initialised("model", load_published(method.models["model"], method.models["model"].state_dict()))
    assert method.param_groups()


VARIANTS: list[dict[str, Any]] = [
    {},
    {"gd_downsample": 1, "keep_ratio": 0.75, "version": "random", "keep_residual": True, "attention": "head"},
    {"version": "grid", "random_offset": True, "attention": "qkv"},
]


@pytest.mark.parametrize("sbp", VARIANTS)
def test_training_and_the_views_of_the_test(root: Path, tmp_path: Path, sbp: dict[str, Any]) -> None:
    config = tiny(data={"root": str(root)}, train={"epochs": 2}, sbp=sbp)
    run = run_training(config, tmp_path / "run")
    assert run.epoch == 2
    figures = run_test(tmp_path / "run" / "checkpoints" / "best.pt")
    assert figures["views"] == [2, 3] and figures["clips"] == 6 * figures["videos"] and figures["bad_videos"] == []


@pytest.fixture(scope="module")
def lists(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The videos as the published lists name them: `path frames label`, the frames always 300, one list per split."""
    folder, videos = tmp_path_factory.mktemp("lists"), root.parent / "source" / "videos"
    rows = read_labels_csv(root.parent / "source" / "labels.csv").rows
    names = sorted({row.label for row in rows})
    for split in ("train", "val"):
        lines = [
            f"{path.relative_to(videos)} 300 {names.index(row.label)}"
            for row in rows
            for path in videos.rglob(f"{row.video_id}*")
            if (row.split == "train") == (split == "train")
        ]
        (folder / f"k400_{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("store", ["frames-db", "npy"])
def test_published_lists_make_a_root_that_is_trained_on(root: Path, lists: Path, tmp_path: Path, store: str) -> None:
    """Both lists into one root; databases of every frame, or arrays at a few frames a second."""
    options = ConvertOptions((40,), stores=(store,), npy_fps=8.0)
    for split in ("train", "val"):
        plan = plan_labels(
            root.parent / "source" / "videos", read_annotations(lists / f"k400_{split}.txt", "frame-list")
        )
        assert not convert(plan, tmp_path / "root", options, num_workers=1).failures
    data = {"root": str(tmp_path / "root"), "store": store, "test_split": "val"}
    run_training(tiny(data=data), tmp_path / "run")
    figures = run_test(tmp_path / "run" / "checkpoints" / "best.pt")
    assert figures["clips"] == 6 * figures["videos"] > 0 and figures["bad_videos"] == []


def test_video_files_are_trained_on_and_tested_without_conversion(root: Path, lists: Path, tmp_path: Path) -> None:
    data = {
        "root": str(root.parent / "source" / "videos"),
        "store": "video-file",
        "labels": [str(lists / f"k400_{split}.txt") for split in ("train", "val")],
        "labels_format": "frame-list",
        "test_split": "val",
    }
    run_training(tiny(data=data), tmp_path / "run")
    figures = run_test(tmp_path / "run" / "checkpoints" / "best.pt")
    assert figures["clips"] == 6 * figures["videos"] > 0


def test_a_video_that_cannot_be_read_is_flagged_in_the_test(root: Path, tmp_path: Path) -> None:
    """The published test put the views of other videos in its place; here the video is left out and named."""
    import shutil

    broken = tmp_path / "root"
    shutil.copytree(root, broken)
    config = tiny(data={"root": str(broken)})
    run_training(config, tmp_path / "run")
    from trainers.data import make_loader

    with make_loader(config, "test") as loader:
        name = loader.dataset.video_ids[1]
    (frames,) = broken.glob(f"jpg/*/{name}/frames.db")
    frames.write_bytes(b"no database")
    figures = run_test(tmp_path / "run" / "checkpoints" / "best.pt")
    assert figures["bad_videos"] == [name]
    assert figures["clips"] == 6 * figures["videos"]


def test_the_plan_counts_less_memory_with_sbp(root: Path) -> None:
    plans = [plan_run(tiny(data={"root": str(root)}, sbp={"gd_downsample": each})) for each in (1, 2)]
    assert plans[1]["activation_bytes_per_clip"] < 0.6 * plans[0]["activation_bytes_per_clip"]
    assert plans[0]["models"] == plans[1]["models"]
