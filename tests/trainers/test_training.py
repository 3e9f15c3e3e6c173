"""Training end to end on real clips: repeatable, resumable, stoppable, and open to methods of other shapes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ingest.errors import ClipmillError
from loaders import ClipBatch
from loaders.telemetry import TelemetryReader
from trainers.config import Config
from trainers.data import make_loader
from trainers.engine.checkpoints import CheckpointFolder, read
from trainers.engine.evaluation import evaluate
from trainers.engine.logs import read_csv
from trainers.engine.loop import make_fabric, train
from trainers.engine.optimizers import build_optimizer
from trainers.engine.run import Run
from trainers.method import Losses
from trainers.session import run_test, run_training
from trainers.srtg.method import MethodConfig

from .conftest import clipmill, command

ConfigOf = Callable[..., MethodConfig]


def losses(folder: Path) -> list[tuple[int, str]]:
    """(step, loss as written) of every step: equal text is equal to the last bit."""
    return [(int(row["step"]), row["loss"]) for row in read_csv(folder / "steps.csv")]


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    from .conftest import RECIPE

    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.yaml").write_text(RECIPE.replace("ROOT", str(root)))
    done = clipmill("train", "srtg", "--config", folder / "tiny.yaml", "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(whole: Path, recipe: Path, tmp_path: Path) -> None:
    assert clipmill("train", "srtg", "--config", recipe, "--out", tmp_path / "a").returncode == 0
    assert clipmill("train", "srtg", "--config", recipe, "--out", tmp_path / "b", "seed=4").returncode == 0
    assert losses(tmp_path / "a") == losses(whole)
    assert losses(tmp_path / "b") != losses(whole)


@pytest.mark.parametrize("checkpoint", ["step_00000003.pt", "step_00000006.pt"])
def test_a_run_killed_and_resumed_gives_the_losses_of_the_whole_one(
    whole: Path, recipe: Path, tmp_path: Path, checkpoint: str
) -> None:
    arguments = ["train", "srtg", "--config", recipe, "--out", tmp_path / "run", "--resume", "auto"]
    with subprocess.Popen(command(arguments), stdout=subprocess.DEVNULL) as process:
        wait_for(tmp_path / "run" / "checkpoints" / checkpoint)
        process.send_signal(signal.SIGKILL)
    killed_at = len(losses(tmp_path / "run"))
    assert killed_at < len(losses(whole))
    assert clipmill(*arguments).returncode == 0
    assert losses(tmp_path / "run") == losses(whole)
    epochs = [(row["epoch"], row["split"], row["loss"], row["top1"]) for row in read_csv(whole / "epochs.csv")]
    again = [
        (row["epoch"], row["split"], row["loss"], row["top1"]) for row in read_csv(tmp_path / "run" / "epochs.csv")
    ]
    assert [row[:2] for row in again] == [row[:2] for row in epochs]
    assert [row[3] for row in again] == [row[3] for row in epochs]
    np.testing.assert_allclose([float(row[2]) for row in again], [float(row[2]) for row in epochs], rtol=1e-12)


def test_a_checkpoint_at_the_last_step_of_an_epoch_resumes_with_the_validation_that_was_due(
    config_of: ConfigOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = CheckpointFolder.save

    def save_first(self: CheckpointFolder, state: dict[str, Any], step: int, *, best: bool = False) -> Path:
        """Keep what was written after the step; the epoch's end would write it anew."""
        path = self.folder / f"step_{step:08d}.pt"
        return path if path.exists() else save(self, state, step, best=best)

    monkeypatch.setattr(CheckpointFolder, "save", save_first)
    overrides = ("train.save_every_steps=4", "train.keep=9")
    run_in_process(config_of(*overrides), tmp_path / "whole")
    steps_per_epoch = len(losses(tmp_path / "whole")) // 2
    assert steps_per_epoch == 4
    last_step = tmp_path / "whole" / "checkpoints" / "step_00000004.pt"
    run_in_process(config_of(*overrides), tmp_path / "resumed", resume=str(last_step))
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")[4:]
    rows = [
        [(row["epoch"], row["split"], row["loss"], row["top1"]) for row in read_csv(tmp_path / name / "epochs.csv")]
        for name in ("whole", "resumed")
    ]
    assert len(rows[0]) == 4
    assert rows[1] == rows[0]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops_and_the_run_goes_on(
    whole: Path, recipe: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "run"
    arguments = ["train", "srtg", "--config", recipe, "--out", folder, "--resume", "auto"]
    with subprocess.Popen(command(arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_for(folder / "checkpoints" / "step_00000003.pt")
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "--resume auto" in errors
    with TelemetryReader(folder) as telemetry:
        assert telemetry.info().state == "stopped"
    assert clipmill(*arguments).returncode == 0
    assert losses(folder) == losses(whole)


def test_a_folder_with_a_run_is_not_overwritten(whole: Path, recipe: Path) -> None:
    before = losses(whole)
    done = clipmill("train", "srtg", "--config", recipe, "--out", whole)
    assert done.returncode == 2
    assert "--resume auto" in done.stderr and "Traceback" not in done.stderr
    assert losses(whole) == before


def test_a_checkpoint_of_another_config_is_refused_with_the_difference(
    whole: Path, recipe: Path, tmp_path: Path
) -> None:
    checkpoint = next((whole / "checkpoints").glob("step_*.pt"))
    done = clipmill(
        "train",
        "srtg",
        "--config",
        recipe,
        "--out",
        tmp_path / "x",
        "--resume",
        checkpoint,
        "optimizer.lr=0.5",
        "model.width=8",
    )
    assert done.returncode == 2
    assert "optimizer.lr: 0.02 -> 0.5" in done.stderr and "model.width: 4 -> 8" in done.stderr


def test_init_takes_weights_only_and_reports_what_it_took(whole: Path, recipe: Path, tmp_path: Path) -> None:
    done = clipmill(
        "train",
        "srtg",
        "--config",
        recipe,
        "--out",
        tmp_path / "x",
        "--init",
        whole / "checkpoints" / "best.pt",
        "train.epochs=1",
    )
    assert done.returncode == 0, done.stderr
    assert "loaded " in done.stdout
    assert losses(tmp_path / "x")[0] != losses(whole)[0]
    wrong = tmp_path / "wrong.pt"
    torch.save({"nothing": torch.zeros(1)}, wrong)
    done = clipmill("train", "srtg", "--config", recipe, "--out", tmp_path / "y", "--init", wrong)
    assert done.returncode == 2 and "fits" in done.stderr


def test_a_finished_run_leaves_config_logs_checkpoints_and_telemetry(whole: Path) -> None:
    assert (whole / "config.yaml").exists()
    assert [row["split"] for row in read_csv(whole / "epochs.csv")] == ["train", "val"] * 2
    with TelemetryReader(whole) as telemetry:
        info = telemetry.info()
        assert (info.state, info.about["method"]) == ("finished", "srtg")
        rows = telemetry.speed(phase="train")
        assert rows and all(row["read"] > 0 and row["forward"] > 0 and row["backward"] > 0 for row in rows)
        assert {"read", "decode", "assemble", "wait"} <= telemetry.stages().keys()
        assert [event["message"].split()[0] for event in telemetry.events()][:2] == ["started", "best"]
    state = read(whole / "checkpoints" / "best.pt")
    assert state["class_names"] == sorted(state["class_names"])


def test_the_test_command_scores_every_video_over_its_views(whole: Path, root: Path, tmp_path: Path) -> None:
    best = whole / "checkpoints" / "best.pt"
    done = clipmill("test", "srtg", "--checkpoint", best, "--json", "data.test_views=[3,1]")
    assert done.returncode == 0, done.stderr
    figures = json.loads((whole / "test.json").read_text())
    assert figures["clips"] == 3 * figures["videos"]
    saved = np.load(whole / "test.npz")
    assert saved["scores"].shape == (figures["videos"], 8)
    np.testing.assert_allclose(saved["scores"].sum(1), 1, rtol=1e-5)
    assert figures["top1"] == pytest.approx((saved["scores"].argmax(1) == saved["labels"]).mean())
    assert np.array(figures["confusion"]).sum() == figures["videos"]


def test_testing_with_the_wrong_method_or_on_nothing_is_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match="no checkpoint"):
        run_test(tmp_path / "none.pt")
    with pytest.raises(ClipmillError, match="no finished video"):
        run_test(whole / "checkpoints" / "best.pt", ["data.test_split=nothing"])
    with pytest.raises(ClipmillError, match="checkpoint of srtg"):
        run_test(whole / "checkpoints" / "best.pt", method_name="other")


def test_an_unknown_network_is_an_error_and_not_a_traceback(recipe: Path, tmp_path: Path) -> None:
    done = clipmill("train", "srtg", "--config", recipe, "--out", tmp_path / "x", "model.name=srtg_r3d_19")
    assert done.returncode == 2
    assert "srtg_r3d_18" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()


# Methods of another shape go through the same loop.


class MeanColour:
    """Two models with an optimizer each: one looks at the mean colour, the other corrects it. No batch norm."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.models: dict[str, nn.Module] = {"spatial": nn.Linear(3, 4), "temporal": nn.Linear(4, 8)}

    def param_groups(self) -> Mapping[str, list[dict[str, Any]]]:
        return {name: [{"params": list(model.parameters())}] for name, model in self.models.items()}

    def losses(self, batch: ClipBatch, device: torch.device) -> Losses:
        logits = self.predict(batch, device)
        labels = batch.labels.to(device)
        return Losses({"ce": cross_entropy(logits, labels), "size": logits.square().mean()}, logits, {"size": 0.1})

    def predict(self, batch: ClipBatch, device: torch.device) -> Tensor:
        colours = batch.frames.to(device).float().mean((1, 2, 3)) / 255
        return self.models["temporal"](self.models["spatial"](colours).tanh())


def train_mean_colour(config: Config, folder: Path) -> MeanColour:
    fabric, method = make_fabric(config), MeanColour()
    optimizers = {}
    for name, groups in method.param_groups().items():
        optimizer = build_optimizer(config.optimizer, groups, config.optimizer.lr)
        method.models[name], optimizers[name] = fabric.setup(method.models[name], optimizer)
    with make_loader(config, "train", rank=fabric.global_rank, world_size=fabric.world_size) as loader:
        run = Run(folder, config, fabric, method, optimizers, loader)
        folder.mkdir(parents=True, exist_ok=True)
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            run.start()
            train(fabric, method, run, None)
        finally:
            run.end("finished")
            signal.signal(signal.SIGINT, handlers[0])
            signal.signal(signal.SIGTERM, handlers[1])
    return method


def test_accumulated_batches_give_the_step_of_one_large_batch(config_of: ConfigOf, tmp_path: Path) -> None:
    large = train_mean_colour(config_of("data.batch_size=8"), tmp_path / "large")
    small = train_mean_colour(config_of("data.batch_size=4", "train.accumulate=2"), tmp_path / "small")
    assert len(losses(tmp_path / "large")) == len(losses(tmp_path / "small"))
    for name in ("spatial", "temporal"):
        for ours, theirs in zip(small.models[name].parameters(), large.models[name].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_two_models_with_two_optimizers_are_both_trained_and_saved(config_of: ConfigOf, tmp_path: Path) -> None:
    method = train_mean_colour(config_of(), tmp_path / "run")
    fresh = MeanColour()
    for name, model in method.models.items():
        assert not torch.equal(model.weight, fresh.models[name].weight)  # type: ignore[arg-type]
    state = read(sorted((tmp_path / "run" / "checkpoints").glob("step_*.pt"))[-1])
    assert state["models"].keys() == state["optimizers"].keys() == {"spatial", "temporal"}


def test_evaluation_averages_probabilities_over_views(config_of: ConfigOf) -> None:
    config = config_of()
    method, fabric = MeanColour(), make_fabric(config)
    with make_loader(config, "test") as loader:
        result = evaluate(fabric, method, loader)
        expected = torch.zeros_like(result.scores)
        for batch in loader:
            for video, row in zip(batch.videos, method.predict(batch, torch.device("cpu")).softmax(1), strict=True):
                expected[video] += row.detach() / loader.spec.num_views
    torch.testing.assert_close(result.scores, expected)
    assert result.num_clips == len(loader.dataset) * 2


def test_gradient_clipping_bounds_the_step(config_of: ConfigOf, tmp_path: Path) -> None:
    config = config_of("optimizer.clip_norm=0.000001", "optimizer.weight_decay=0.0", "train.epochs=1")
    method, fresh = train_mean_colour(config, tmp_path / "run"), MeanColour()
    for name, model in method.models.items():
        torch.testing.assert_close(model.weight, fresh.models[name].weight, rtol=0, atol=1e-5)  # type: ignore[arg-type]


def test_training_needs_a_validation_split_that_exists(config_of: ConfigOf, tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match="'nowhere'"):
        run_training(config_of("data.val_split=nowhere"), tmp_path / "run")


def run_in_process(config: MethodConfig, folder: Path, resume: str | None = None) -> None:
    """`run_training`, with the signal handlers of the test runner put back."""
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        run_training(config, folder, resume=resume)
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)


def wait_for(path: Path, timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not appear"
        time.sleep(0.005)


def open_databases() -> set[str]:
    """Frame databases that this process has open: its descriptors, and what they lead to."""
    paths = [path for path in Path("/proc/self/fd").iterdir() if path.exists()]
    return {f"{path.name} {path.readlink()}" for path in paths if path.readlink().name == "frames.db"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_file_of_the_loader_is_left_open_after_training(config_of: ConfigOf, tmp_path: Path) -> None:
    before = open_databases()
    train_mean_colour(config_of("train.epochs=1"), tmp_path / "run")
    assert open_databases() <= before


def test_the_best_checkpoint_has_the_highest_accuracy_and_of_those_the_lowest_loss(
    config_of: ConfigOf, tmp_path: Path
) -> None:
    config = config_of()
    method, fabric = MeanColour(), make_fabric(config)
    with make_loader(config, "train") as loader:
        run = Run(tmp_path / "run", config, fabric, method, {}, loader)
        run.folder.mkdir()
        run.journal.epochs.start(before_step=0)
        kept = []
        for top1, loss in ((3, 1.0), (3, 2.0), (3, 0.5), (2, 0.1), (4, 3.0)):
            run.step += 1
            run.epoch_trained(waited_s=0.0)
            run.epoch_done({"loss": loss, "top1": top1 / 4})
            kept.append(read(run.checkpoints.folder / "best.pt")["step"])
    assert kept == [1, 1, 3, 3, 5]
