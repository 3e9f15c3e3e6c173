"""What the engine offers every method: ranks, time limits, multigrid, overfitting, dry runs, logs, bad videos."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ingest.errors import ClipmillError
from loaders.telemetry import TelemetryReader
from trainers.data import clip_spec, make_loader
from trainers.engine.evaluation import evaluate
from trainers.engine.logs import read_csv
from trainers.engine.loop import make_fabric
from trainers.method import find_method
from trainers.session import _initialise, run_test, run_training
from trainers.srtg.method import MethodConfig

from .conftest import clipmill, command
from .test_training import MeanColour, losses, train_mean_colour

ConfigOf = Callable[..., MethodConfig]

# A process of its own that trains the batch-norm-free `MeanColour`: what two ranks compute is then what one does.
RANK = """
import sys
from pathlib import Path
from trainers.config import load
from trainers.srtg.method import MethodConfig
from tests.trainers.test_training import train_mean_colour
train_mean_colour(load(Path(sys.argv[1]), sys.argv[3:], MethodConfig), Path(sys.argv[2]))
"""


def train_ranks(recipe: Path, folder: Path, *overrides: str, devices: int) -> None:
    script = folder.parent / "rank.py"
    script.write_text(RANK)
    words = [sys.executable, script, recipe, folder, f"train.devices={devices}", *overrides]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=240, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr


def test_two_ranks_have_the_losses_of_one_with_the_same_global_batch(recipe: Path, tmp_path: Path) -> None:
    train_ranks(recipe, tmp_path / "one", "data.batch_size=8", devices=1)
    train_ranks(recipe, tmp_path / "two", "data.batch_size=4", devices=2)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [step for step, _ in one] == [step for step, _ in two] and len(one) == 4
    np.testing.assert_allclose([float(x) for _, x in one], [float(x) for _, x in two], rtol=1e-5)
    batch_sizes = {row["batch_size"] for name in ("one", "two") for row in read_csv(tmp_path / name / "steps.csv")}
    assert batch_sizes == {"8"}
    assert (tmp_path / "two" / "telemetry.rank0001.db").exists()


def test_a_run_of_two_ranks_goes_through_the_command_line(recipe: Path, tmp_path: Path) -> None:
    done = clipmill(
        # The validation has no clip for the second rank: neither may wait for the other.
        "train", "srtg", "--config", recipe, "--out", tmp_path / "run", "--devices", 2, "data.batch_size=8",
        "train.epochs=1", timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Done:") == 1
    assert [row["split"] for row in read_csv(tmp_path / "run" / "epochs.csv")] == ["train", "val"]


def test_processes_that_torchrun_has_started_are_joined(recipe: Path, tmp_path: Path) -> None:
    words = ["-m", "clipmill", "train", "srtg", "--config", recipe, "--out", tmp_path / "run", "--devices", 2]
    words += ["data.batch_size=2", "train.epochs=1", "train.report=false"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *words]
    done = subprocess.run(list(map(str, launcher)), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Done:") == 1
    assert {row["batch_size"] for row in read_csv(tmp_path / "run" / "steps.csv")} == {"4"}


def test_a_time_limit_saves_before_it_and_the_run_goes_on(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["train", "srtg", "--config", recipe, "--out", folder, "--resume", "auto", "train.epochs=3"]
    done = clipmill(*arguments, "--stop-after", "0.01")
    assert done.returncode == 75, done.stderr
    assert "train.stop_after" in done.stderr and "--resume auto" in done.stderr
    assert len(losses(folder)) == 1
    assert clipmill(*arguments, "--stop-after", "1:00:00").returncode == 0
    assert clipmill("train", "srtg", "--config", recipe, "--out", tmp_path / "whole", "train.epochs=3").returncode == 0
    assert losses(folder) == losses(tmp_path / "whole")
    wrong = clipmill(*arguments, "--stop-after", "soon")
    assert wrong.returncode == 2 and "'soon'" in wrong.stderr


def test_overfitting_goes_over_the_same_batches_and_brings_the_loss_down(config_of: ConfigOf, tmp_path: Path) -> None:
    config = config_of(
        "train.overfit_batches=1", "train.epochs=25", "train.validate_every=25", "train.save_every=25",
        "schedule.name=constant", "optimizer.name=adamw", "optimizer.lr=0.01", "model.gates=off", "train.report=false",
    )  # fmt: skip
    run_quietly(config, tmp_path / "run")
    found = [float(loss) for _, loss in losses(tmp_path / "run")]
    assert len(found) == 25
    assert found[-1] < found[0] / 4


def test_overfitting_resumes_at_its_place(config_of: ConfigOf, tmp_path: Path) -> None:
    overrides = ("train.overfit_batches=2", "train.epochs=2", "train.report=false", "train.keep=9")
    run_quietly(config_of(*overrides), tmp_path / "whole")
    middle = tmp_path / "whole" / "checkpoints" / "step_00000003.pt"
    run_quietly(config_of(*overrides), tmp_path / "resumed", resume=str(middle))
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")[3:]


@pytest.mark.parametrize("name", ["srtg", "wu"])
def test_multigrid_changes_shape_and_rate_and_resumes(config_of: ConfigOf, tmp_path: Path, name: str) -> None:
    cycle = "long=false" if name == "srtg" else "short=false"  # Both together need more videos than there are here.
    overrides = (
        f"multigrid.name={name}", f"multigrid.{cycle}", "data.batch_size=2", "data.num_frames=8",
        "schedule.name=multistep", "schedule.milestones=[2]", "schedule.warmup_epochs=0", "train.epochs=3",
        "train.report=false", "train.keep=99", "model.gates=off", "train.save_every_steps=2",
    )  # fmt: skip
    config = config_of(*overrides)
    run_quietly(config, tmp_path / "run")
    rows = read_csv(tmp_path / "run" / "steps.csv")
    with make_loader(config, "train") as loader:
        plan = loader.plan
    assert plan is not None and len(rows) == plan.num_steps
    expected = [plan.at_step(step) for step in range(plan.num_steps)]
    assert [(int(row["batch_size"]), int(row["num_frames"]), int(row["height"])) for row in rows] == [
        (batch.num_clips, batch.shape.num_frames, batch.shape.height) for batch in expected
    ]
    np.testing.assert_allclose([float(row["lr"]) for row in rows], [0.02 * batch.lr_factor for batch in expected])
    assert len({row["height"] for row in rows}) > 1
    middle = sorted((tmp_path / "run" / "checkpoints").glob("step_*.pt"))[len(rows) // 4]
    run_quietly(config, tmp_path / "resumed", resume=str(middle))
    done = int(middle.stem.removeprefix("step_"))
    assert losses(tmp_path / "resumed") == losses(tmp_path / "run")[done:]


def test_multigrid_without_milestones_of_its_own_is_refused(config_of: ConfigOf) -> None:
    with pytest.raises(ClipmillError, match="cosine schedule has none"):
        config_of("multigrid.name=wu")


def test_a_dry_run_says_what_would_be_done_and_does_nothing(recipe: Path, tmp_path: Path) -> None:
    arguments = ["train", "srtg", "--config", recipe, "--out", tmp_path / "run", "--dry-run"]
    done = clipmill(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["data"]["training"] == 16 and plan["data"]["classes"] == 8
    assert plan["steps"] == 2 * plan["steps_per_epoch"][0] == 8
    assert plan["first_batch"] == [4, 4, 32, 32]
    assert plan["forward_flops_per_clip"] > 1e6
    assert (
        1 < plan["backward_flops_per_clip"] / plan["forward_flops_per_clip"] < 2
    )  # the first layer has no gradient to pass on
    assert plan["activation_bytes_per_clip"] > 4 * 32 * 32 * 3 * 4
    assert plan["rates"]["model"]["highest"] <= 0.02
    text = clipmill(*arguments)
    assert "8 steps of 4 clips" in text.stdout
    assert not (tmp_path / "run").exists()


def test_curves_are_written_for_tensorboard_and_as_the_historical_csv(config_of: ConfigOf, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_quietly(config_of(), tmp_path / "run")
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    found.Reload()
    tags = set(found.Tags()["scalars"])
    assert {"step/loss", "step/lr", "step/clips_per_s", "train/loss", "val/top1", "val/mean_average_precision"} <= tags
    assert [event.step for event in found.Scalars("val/loss")] == [4, 8]
    for split in ("train", "val"):
        text = (tmp_path / "run" / f"{split}_results_s0000.csv").read_bytes().decode()
        lines = text.split("\r\n")
        assert lines[0] == "Epoch,Top1,Top5,Loss" and lines[-1] == ""
        rows = [row for row in read_csv(tmp_path / "run" / "epochs.csv") if row["split"] == split]
        for line, row in zip(lines[1:-1], rows, strict=True):
            assert line == ",".join((row["epoch"], row["top1"], row["top5"], row["loss"]))
    with TelemetryReader(tmp_path / "run") as telemetry:
        rows = telemetry.speed(phase="val")
        assert len(rows) == 2 and all(row["forward"] > 0 and row["top1"] is not None for row in rows)


def test_the_report_shows_the_run(config_of: ConfigOf, tmp_path: Path) -> None:
    run_quietly(config_of(), tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    for title in ("Loss and accuracy", "Confusion matrix", "Accuracy by class", "went wrong the most", "Speed"):
        assert title in page
    assert page.count("data:image/png;base64,") >= 5
    assert "http://" not in page and "https://" not in page


def test_a_video_that_cannot_be_read_is_named_and_left_out_of_the_figures(
    root: Path, config_of: ConfigOf, tmp_path: Path
) -> None:
    import shutil

    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    config = config_of(f"data.root={copy}")
    method, fabric = MeanColour(), make_fabric(config)
    with make_loader(config, "test") as loader:
        whole = evaluate(fabric, method, loader)
        victim = loader.dataset.video_ids[0]
        database = next(copy.glob(f"**/{victim}/frames.db"))
    with sqlite3.connect(database) as db:
        db.execute("UPDATE Images SET frames = x'00'")
    with make_loader(config, "test") as loader:
        broken = evaluate(fabric, method, loader)
    assert broken.bad_videos == [victim]
    assert broken.video_ids == whole.video_ids[1:]
    torch.testing.assert_close(broken.scores, whole.scores[1:])
    expected = float((whole.scores[1:].argmax(1) == whole.labels[1:]).float().mean())
    assert broken.figures["top1"] == pytest.approx(expected)
    run_quietly(config_of(f"data.root={root}", "train.epochs=1"), tmp_path / "run")
    figures = run_test(tmp_path / "run" / "checkpoints" / "best.pt", [f"data.root={copy}"])
    assert figures["bad_videos"] == [victim]


def test_views_are_averaged_as_scores_where_that_is_asked_for(config_of: ConfigOf) -> None:
    config = config_of()
    method, fabric = MeanColour(), make_fabric(config)
    with make_loader(config, "test") as loader:
        result = evaluate(fabric, method, loader, average="score")
        expected = torch.zeros_like(result.scores)
        for batch in loader:
            expected.index_add_(0, batch.videos, method.predict(batch, torch.device("cpu")).detach())
    torch.testing.assert_close(result.scores, expected / loader.spec.num_views)


def test_models_may_have_optimizers_and_schedules_of_their_own(config_of: ConfigOf, tmp_path: Path) -> None:
    config = config_of(
        "optimizers.spatial.lr=0.5", "optimizers.temporal.name=adam", "schedules.spatial.name=constant",
        "schedules.spatial.warmup_epochs=0",
    )  # fmt: skip
    assert (config.optimizer_of("spatial").lr, config.optimizer_of("temporal").name) == (0.5, "adam")
    assert config.schedule_of("spatial").name == "constant" and config.schedule_of("temporal").name == "cosine"
    train_mean_colour(config, tmp_path / "run")
    assert {row["lr"] for row in read_csv(tmp_path / "run" / "steps.csv")} == {"0.5"}
    with pytest.raises(ClipmillError, match=r"optimizers\.spatial\.rl.*'lr'"):
        config_of("optimizers.spatial.rl=1")


def test_the_figure_that_decides_must_be_one_there_is(config_of: ConfigOf) -> None:
    with pytest.raises(ClipmillError, match=r"train\.best"):
        config_of("train.best=f1")


def run_quietly(config: MethodConfig, folder: Path, resume: str | None = None) -> None:
    """`run_training`, with the signal handlers of the test runner put back."""
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        run_training(config, folder, resume=resume)
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)


def test_a_killed_run_resumes_bit_for_bit_on_one_thread(recipe: Path, tmp_path: Path) -> None:
    """Kill -9 between two checkpoints of an epoch."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    arguments = ["train", "srtg", "--config", recipe, "--resume", "auto", "train.report=false"]
    whole = subprocess.run(
        command([*arguments, "--out", tmp_path / "whole"]), env=environment, capture_output=True, check=False
    )
    assert whole.returncode == 0
    with subprocess.Popen(
        command([*arguments, "--out", tmp_path / "run"]), env=environment, stdout=subprocess.DEVNULL
    ) as process:
        while not (tmp_path / "run" / "checkpoints" / "step_00000003.pt").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    again = subprocess.run(
        command([*arguments, "--out", tmp_path / "run"]), env=environment, capture_output=True, check=False
    )
    assert again.returncode == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    for one, two in zip(
        *(
            torch.load(tmp_path / name / "checkpoints" / "step_00000008.pt", weights_only=True)["models"][
                "model"
            ].values()
            for name in ("run", "whole")
        ),
        strict=True,
    ):
        assert torch.equal(one, two)


def test_a_mirrored_left_is_a_right_unless_the_config_says_otherwise(config_of: ConfigOf) -> None:
    names = ["down", "left", "right"]
    rule = clip_spec(config_of("data.flip=1.0").data, "train", names).flip_labels
    assert rule is not None and [rule.after_flip(label) for label in range(3)] == [0, 2, 1]
    kept = clip_spec(config_of("data.flip=1.0", "data.flip_labels=keep").data, "train", names).flip_labels
    assert kept is not None and kept.after_flip(1) == 1
    assert clip_spec(config_of().data, "train", ["up", "down"]).flip_labels is None
    with make_loader(config_of("data.flip=1.0"), "train") as loader:
        names = loader.dataset.class_names
        true = dict(zip(loader.dataset.video_ids, loader.dataset.labels.tolist(), strict=True))
        opposite = {"left": "right", "right": "left"}
        for batch in loader:
            for video_id, label in zip(batch.video_ids, batch.labels.tolist(), strict=True):
                own = names[true[video_id]]
                assert names[label] == opposite.get(own, own)


def test_init_brings_plain_batch_norm_to_one_over_parts(config_of: ConfigOf, tmp_path: Path) -> None:
    plain = ("model.gates=off", "train.epochs=1", "train.report=false")
    run_quietly(config_of(*plain), tmp_path / "plain")
    weights = tmp_path / "plain" / "checkpoints" / "best.pt"
    config = config_of(*plain, "model.norm=sub", "model.norm_clips=2")
    method = find_method("srtg").create(config, 8)
    _initialise(find_method("srtg"), method, weights)
    saved = torch.load(weights, weights_only=True)["models"]["model"]
    own = method.models["model"].state_dict()
    found = [name for name in saved if name.endswith("running_mean")]
    assert found
    for name in found:
        owner = name.removesuffix(".running_mean")
        torch.testing.assert_close(own[f"{owner}.bn.running_mean"], saved[name])
