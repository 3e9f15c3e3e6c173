"""LSTR through the engine: training, resuming, testing in every mode, and what is saved."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ingest.errors import ClipmillError
from trainers.config import load
from trainers.lstr.evaluation import read_results
from trainers.lstr.method import MethodConfig
from trainers.session import run_test, run_training


def trained(recipe: Path, folder: Path, *overrides: str, **options) -> Path:
    run_training(load(recipe, list(overrides), MethodConfig), folder, **options)
    return folder


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.trainers.lstr.conftest import RECIPE

    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(RECIPE.replace("ROOT", str(root)))
    return trained(folder / "tiny.yaml", folder / "out")


def test_training_learns_and_logs(run: Path) -> None:
    with (run / "epochs.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    assert len(rows) == 5
    assert float(rows[-1]["mean_average_precision"]) > 0.8 > float(rows[0]["mean_average_precision"])
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert (run / "report.html").exists()


@pytest.mark.parametrize("mode", ["batch", "stream"])
def test_a_test_saves_scores_and_a_table(run: Path, root: Path, mode: str) -> None:
    figures = run_test(run / "checkpoints" / "best.pt", [f"inference.mode={mode}"], "lstr")
    assert figures["mean_average_precision"] > 0.8
    assert figures["videos"] == 2 and figures["too_short"] == ["short"]
    results = read_results(run / "test.npz")
    assert list(results) == ["d", "b"]  # In the order of the data set.
    for session, (scores, targets) in results.items():
        stored = np.load(root / "target_perframe" / f"{session}.npy")
        assert (targets == stored).all()
        np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    table = json.loads((run / "test_table.json").read_text())
    assert table["mean_AP"] == figures["mean_average_precision"]
    assert list(table["per_class_AP"]) == ["Run", "Jump", "Wave"]
    assert list(table["per_stage"])[:2] == [" 0%_ 10%", "10%_ 20%"]


def test_batch_and_stream_save_the_same_scores(run: Path) -> None:
    saved = {}
    for mode in ("batch", "stream", "stream-reference"):
        run_test(run / "checkpoints" / "best.pt", [f"inference.mode={mode}", "inference.short=repeat_first"], "lstr")
        saved[mode] = read_results(run / "test.npz")
        assert list(saved[mode]) == ["d", "b", "short"]
    for session in ("d", "b"):
        np.testing.assert_allclose(saved["stream"][session][0], saved["batch"][session][0], atol=1e-5)
        assert np.abs(saved["stream-reference"][session][0] - saved["batch"][session][0]).max() > 1e-5


def test_a_resumed_run_ends_where_the_other_did(recipe: Path, tmp_path: Path) -> None:
    options = ["train.epochs=2", "train.report=false", "train.save_every_steps=3", "train.keep=50"]
    whole, half = trained(recipe, tmp_path / "whole", *options), tmp_path / "half"
    trained(recipe, half, *options)
    kept = half / "checkpoints" / "step_00000003.pt"  # In the middle of an epoch.
    for later in half.glob("checkpoints/*.pt"):
        if later != kept:
            later.unlink()
    trained(recipe, half, *options, resume="auto")
    ends = [sorted((folder / "checkpoints").glob("step_*.pt"))[-1] for folder in (whole, half)]
    states = [torch.load(end, weights_only=True) for end in ends]
    assert states[0]["step"] == states[1]["step"]
    for name, value in states[0]["models"]["model"].items():
        torch.testing.assert_close(states[1]["models"]["model"][name], value, rtol=0, atol=0)


def test_only_the_arrays_of_the_modality_are_opened(root: Path, recipe: Path) -> None:
    config = load(recipe, ["model.modality=visual", "data.motion=is_not_there"], MethodConfig)
    from trainers.lstr.method import make_loader

    with make_loader(config, "train") as loader:
        batch = next(iter(loader))
    assert batch.motion is None and batch.visual is not None
    with pytest.raises(ClipmillError, match="is_not_there"):
        make_loader(load(recipe, ["data.motion=is_not_there"], MethodConfig), "train")


@pytest.mark.parametrize("loss", ["BCE", "SCE"])
def test_other_losses_train(recipe: Path, tmp_path: Path, loss: str) -> None:
    folder = trained(recipe, tmp_path / "run", f"loss={loss}", "train.epochs=1", "train.report=false")
    with (folder / "steps.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.visual_size=7", "6 numbers per row"),
        ("data.name=Other", "Tiny"),
        ("data.fps=2", "rows per second"),
        ("model.long_rate=3", "multiple"),
        ("model.num_heads=5", "divide"),
        ("data.targets=rgb", "classes"),
        ("scoring.switch=true", "CliffDiving"),
    ],
)
def test_what_does_not_fit_is_said(recipe: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ClipmillError, match=message):
        folder = trained(recipe, tmp_path / "run", override, "train.epochs=1", "train.report=false")
        run_test(folder / "checkpoints" / "best.pt", [], "lstr")


def test_a_dry_run_says_what_would_be_run(recipe: Path) -> None:
    from trainers.dry_run import plan_run

    plan = plan_run(load(recipe, [], MethodConfig))
    assert plan["data"]["classes"] == 5 and plan["first_batch"] == [4, 16, 1, 1]
    assert plan["models"]["model"]["parameters"] > 0 and plan["forward_flops_per_clip"] > 0


def test_validation_may_score_every_row_as_the_test_does(recipe: Path, tmp_path: Path) -> None:
    options = ["data.validation=every-row", "train.epochs=1", "train.report=false"]
    folder = trained(recipe, tmp_path / "run", *options)
    with (folder / "epochs.csv").open() as file:
        found = [float(row["mean_average_precision"]) for row in csv.DictReader(file) if row["split"] == "val"]
    assert found == [run_test(folder / "checkpoints" / "best.pt", [], "lstr")["mean_average_precision"]]


def test_ranks_take_sessions_in_turn(recipe: Path) -> None:
    from trainers.lstr.method import make_loader

    config = load(recipe, [], MethodConfig)
    parts = [list(make_loader(config, "test", rank=rank, world_size=2)) for rank in range(2)]
    assert parts == [[0, 2], [1]]


def test_a_few_windows_can_be_learnt_by_heart(recipe: Path, tmp_path: Path) -> None:
    options = ["train.overfit_batches=1", "train.epochs=40", "train.validate_every=40", "train.save_every=40"]
    folder = trained(recipe, tmp_path / "run", *options, "train.report=false", "schedule.name=constant")
    with (folder / "steps.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.2 * losses[0]
