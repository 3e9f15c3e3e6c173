"""The end-to-end detector: frames in, features cached at inference, two optimizers, gradients through kept frames."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import configs
from ingest.errors import ClipmillError
from loaders.order import sample_rng
from trainers.config import check, dump, load
from trainers.dry_run import plan_run
from trainers.engine.loop import make_fabric
from trainers.sbp.feedback import features_of, frozen_features, partial_features
from trainers.sbp.spatial import build_spatial
from trainers.sbp_e2e.frames import window_frames
from trainers.sbp_e2e.method import (
    MethodConfig,
    create,
    evaluate,
    load_backbone,
    load_published,
    make_loader,
    transformed,
)
from trainers.session import run_test, run_training

CLASSES = ["Background", "Left", "Right", "Ambiguous"]
LENGTHS = {"one": 40, "two": 31, "three": 6, "four": 23}

SMALL: dict[str, Any] = {
    "method": "sbp_e2e",
    "data": {"root": "ROOT", "info": "INFO", "name": "TOY", "fps": 2, "batch_size": 2, "size": 32,
             "short_side": [34, 40], "eval_short_side": 36},
    "model": {"spatial": {"backbone": "resnet18"}, "long_seconds": 4, "long_rate": 2, "work_seconds": 4, "width": 16,
              "encoder": [[2, 1, True]], "decoder": [1, True], "num_heads": 2, "hidden": 16, "dropout": 0.0},
    "optimizer": {"name": "adam", "lr": 1e-3, "clip_norm": 20},
    "optimizers": {"spatial": {"lr": 1e-4}},
    "train": {"epochs": 1, "accelerator": "cpu", "log_every": 2, "tensorboard": False, "report": False,
              "best": "mean_average_precision"},
}  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sessions of noisy frames at 2 a second, with targets."""
    import json

    root, rng = tmp_path_factory.mktemp("toy"), np.random.default_rng(0)
    for folder in ("rgb_npy", "target_perframe"):
        (root / folder).mkdir()
    for name, length in LENGTHS.items():
        classes = rng.integers(0, len(CLASSES), length)
        frames = rng.integers(0, 60, (length, 38, 50, 3)) + classes[:, None, None, None] * 40
        np.save(root / "rgb_npy" / f"{name}.npy", frames.astype(np.uint8))
        np.save(root / "target_perframe" / f"{name}.npy", np.eye(len(CLASSES), dtype=np.int64)[classes])
    entry = {"data_root": str(root), "class_names": CLASSES, "num_classes": 4, "ignore_index": 3, "metrics": "AP",
             "fps": 2, "train_session_set": ["one", "two"], "test_session_set": ["four", "three"]}  # fmt: skip
    (root / "data_info.json").write_text(json.dumps({"TOY": entry}))
    return root


def config_of(root: Path, **changes: dict[str, Any]) -> MethodConfig:
    values = {key: value | changes.get(key, {}) if isinstance(value, dict) else value for key, value in SMALL.items()}
    values |= {key: value for key, value in changes.items() if key not in values}
    values["data"] = values["data"] | {"root": str(root), "info": str(root / "data_info.json")}
    return check(values, MethodConfig, "test")


def test_the_recipe_is_the_published_one() -> None:
    path = Path(configs.__path__[0]) / "sbp_e2e" / "sbp_e2e_lstr_128_32.yaml"
    config = load(path, [], MethodConfig)
    windows = config.windows()
    assert (windows.num_long, windows.num_work, windows.long_length) == (128, 32, 512)
    spatial, temporal = config.optimizer_of("spatial"), config.optimizer_of("temporal")
    assert (spatial.lr, temporal.lr, spatial.clip_norm, temporal.weight_decay) == (3e-6, 5e-5, 20, 5e-5)
    with torch.device("meta"):
        method = create(config, 22)
        features = method.models["spatial"](torch.empty(1, 160, 3, 224, 224))
    assert features.shape == (1, 160, 2048)
    assert method.ignore_index == 21
    assert all("bn" not in name for name, each in method.models["spatial"].named_parameters() if each.requires_grad)


def frames_and_model() -> tuple[Tensor, nn.Module]:
    torch.manual_seed(0)
    model = build_spatial("resnet18").train()
    return torch.randn(2, 7, 3, 32, 32), model


@pytest.mark.parametrize("jitter", [False, True])
def test_partial_feedback_equals_detached_features(jitter: bool) -> None:
    frames, model = frames_and_model()
    rng: Callable[[], Any] = lambda: np.random.default_rng(3) if jitter else None  # noqa: E731
    from loaders.sampling import kept_frames

    kept = kept_frames(7, 0.4, rng())
    gradients = []
    for ours in (True, False):
        model.zero_grad()
        if ours:
            features = partial_features(model, frames, 0.4, jitter=rng())
        else:
            whole = model(frames)
            mask = torch.zeros(7, 1)
            mask[kept] = 1
            features = whole * mask + whole.detach() * (1 - mask)
        features.square().sum().backward()
        gradients.append(torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None]))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


def test_a_ratio_above_a_half_keeps_every_frame() -> None:
    frames, model = frames_and_model()
    torch.testing.assert_close(partial_features(model, frames, 0.7), model(frames))


def test_chunks_change_nothing() -> None:
    frames, model = frames_and_model()
    kept = torch.tensor([1, 4])
    whole = features_of(model, frames, kept)
    torch.testing.assert_close(features_of(model, frames, kept, chunk=2), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(frozen_features(model, frames, chunk=3), model(frames).detach(), rtol=1e-4, atol=1e-5)


def test_checkpointing_of_the_backbone_changes_no_gradient() -> None:
    frames, model = frames_and_model()
    torch.manual_seed(0)
    twin = build_spatial("resnet18", checkpointing=True).train()
    twin.load_state_dict(model.state_dict())
    for each in (model, twin):
        partial_features(each, frames, 0.4).square().sum().backward()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        if mine.requires_grad:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="bn_inception has no checkpointing"):
        build_spatial("bn_inception", checkpointing=True)


def test_partial_feedback_needs_fixed_statistics(tmp_path: Path) -> None:
    with pytest.raises(ClipmillError, match="partial feedback needs"):
        config_of(tmp_path, model={"spatial": {"backbone": "resnet18", "frozen_bn": False}})


def test_memories_are_transformed_apart_and_again_the_same(toy: Path) -> None:
    config = config_of(toy)
    batches = []
    for _ in range(2):
        with make_loader(config, "train") as loader:
            batches.append(next(iter(loader)))
    assert batches[0].shape == (2, 12, 32, 32)
    torch.testing.assert_close(batches[0].visual, batches[1].visual, rtol=0, atol=0)
    dataset = config.dataset("train")
    session, start = int(batches[0].sessions[0]), int(batches[0].starts[0])
    window, rng = config.windows().train(start), sample_rng(config.seed, 0, 1 << 32)
    array = dataset.arrays(session)[0]
    long, work = (transformed(array[rows], config.data, rng) for rows in (window.long, window.work))
    torch.testing.assert_close(batches[0].visual[0], torch.cat([long, work]), rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["batch", "stream"])
@pytest.mark.parametrize("ages_seconds", [0, 2])
def test_cached_features_give_the_scores_of_the_slow_way(toy: Path, ages_seconds: int, mode: str) -> None:
    """One pass over every frame, and every window over its frames anew: the same scores."""
    model = {"ages_seconds": ages_seconds, "spatial": {"backbone": "resnet18"}}
    config = config_of(toy, model=model, inference={"mode": mode})
    torch.manual_seed(0)
    method = create(config, len(CLASSES))
    with make_loader(config, "test") as loader:
        found = evaluate(make_fabric(config), method, loader)
    assert found.extra["too_short"] == ["three"]
    windows, dataset = config.windows(), config.dataset("test")
    frames, _, targets = dataset.arrays(0)
    slow = np.zeros((len(targets), len(CLASSES)), np.float32)
    for start in windows.every_start(len(targets)).tolist():
        window = windows.test(start)
        clip = window_frames(frames, window, lambda rows, rng: transformed(rows, config.data, rng), None)
        with torch.no_grad():
            features = method.models["spatial"].eval()(clip[None])
            logits = method.network.eval()(features, None, torch.from_numpy(window.mask)[None])
        decided = windows.rows_decided(start)
        slow[decided] = logits[0].softmax(1).numpy()[-len(decided) :]
    np.testing.assert_allclose(found.sessions["four"][0], slow, rtol=1e-4, atol=1e-5)


AGES = {"ages_seconds": 2, "spatial": {"backbone": "resnet18"}}


def test_an_age_memory_is_one_more_token_of_the_decoder(toy: Path) -> None:
    """Against the network written out: frames of 2 s before the long memory, a GRU over them, positions from theirs on."""
    config = config_of(toy, model=AGES)
    windows = config.windows()
    assert (config.num_ages, windows.num_long, windows.long_length) == (2, 6, 12)
    torch.manual_seed(0)
    network = create(config, len(CLASSES)).network.eval()
    assert [tuple(each.shape) for name, each in network.state_dict().items() if name.startswith("ages_linears.3")] == [
        (16, 16), (16,)
    ]  # fmt: skip
    window = windows.test(5)  # rows 0, 2, 4 of a video, behind three slots of padding
    assert window.num_masked == 3 and window.long.tolist() == [0, 0, 0, 0, 2, 4]
    rows, mask = torch.randn(2, 14, 512), torch.from_numpy(window.mask).expand(2, -1)
    a, n, dim = 2, 6, 16
    tokens = [
        head.input_linear(part).transpose(0, 1)
        for head, part in zip(
            (network.feature_head_ages, network.feature_head_long, network.feature_head_work),
            (rows[:, :a], rows[:, a:n], rows[:, n:]),
            strict=True,
        )
    ]
    gru, state = network.ages_modules, torch.zeros(2, dim)
    for row in tokens[0]:
        reset, update, new = (row @ gru.weight_ih_l0.T + gru.bias_ih_l0).chunk(3, 1)
        own_reset, own_update, own_new = (state @ gru.weight_hh_l0.T + gru.bias_hh_l0).chunk(3, 1)
        update = (update + own_update).sigmoid()
        state = update * state + (1 - update) * (new + (reset + own_reset).sigmoid() * own_new).tanh()
    layers = network.ages_linears
    age = layers[4](layers[3](layers[0](state).relu()))
    pe = network.pos_encoding.pe
    queries = network.enc_queries[0].weight[:, None].expand(-1, 2, -1)
    memory = network.enc_modules[0](queries, tokens[1] + pe[a:n], padding_mask=mask[:, a:])
    causal = torch.full((8, 8), float("-inf")).triu(1)
    out = network.dec_modules(tokens[2] + pe[n : n + 8], torch.cat([age[None], memory]), causal)
    torch.testing.assert_close(network(rows, None, mask), network.classifier(out).transpose(0, 1))


def test_feedback_treats_frames_of_the_age_memory_as_any_others(toy: Path) -> None:
    config = config_of(toy, model=AGES, feedback={"keep_ratio": 0.5})
    method = create(config, len(CLASSES))
    with make_loader(config, "train") as loader:
        batch = next(iter(loader))
    assert batch.shape == (2, 14, 32, 32)
    batch.visual.requires_grad_()
    method.losses(batch, torch.device("cpu")).total.backward()
    reached = batch.visual.grad.abs().sum((0, 2, 3, 4)) > 0
    assert reached.nonzero().flatten().tolist() == [0, 2, 4, 6, 8, 10, 12]  # the first is of the age memory
    assert all(each.grad is not None for each in method.network.parameters())


@pytest.mark.parametrize(
    ("model", "inference", "message"),
    [
        ({"long_seconds": 0}, {}, "needs a model.long_seconds"),
        ({"ages_seconds": 1, "long_seconds": 4, "long_rate": 4}, {}, "2 frames, no multiple of model.long_rate 4"),
        ({}, {"mode": "stream-reference"}, "knows no age memory"),
    ],
)
def test_an_age_memory_needs_what_comes_after_it(
    toy: Path, model: dict[str, Any], inference: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClipmillError, match=message):
        config_of(toy, model=AGES | model, inference=inference)


@pytest.mark.parametrize(
    ("feedback", "ages_seconds"),
    [({"keep_ratio": 0.2}, 0), ({"keep_ratio": 0.25, "jitter": True}, 2), ({"keep_ratio": None}, 0)],
)
def test_both_models_train_and_are_tested(
    toy: Path, tmp_path: Path, feedback: dict[str, Any], ages_seconds: int
) -> None:
    model = {"ages_seconds": ages_seconds, "spatial": {"backbone": "resnet18"}}
    config = config_of(toy, model=model, feedback=feedback, train={"epochs": 2})
    torch.manual_seed(config.seed)
    before = create(config, len(CLASSES))
    run = run_training(config, tmp_path / "run")
    assert run.epoch == 2
    state = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    for name, model in before.models.items():
        moved = [key for key, each in model.named_parameters() if not each.equal(state["models"][name][key])]
        assert moved and all(".bn." not in key for key in moved)
    figures = run_test(tmp_path / "run" / "checkpoints" / "best.pt")
    assert 0 <= figures["mean_average_precision"] <= 1
    assert (tmp_path / "run" / "test.npz").exists()


def test_a_frozen_backbone_is_not_trained(toy: Path) -> None:
    config = config_of(toy, model={"spatial": {"backbone": "resnet18", "freeze": True}})
    method = create(config, len(CLASSES))
    assert set(method.param_groups()) == {"temporal"}
    with make_loader(config, "train") as loader:
        method.losses(next(iter(loader)), torch.device("cpu")).total.backward()
    assert all(each.grad is None for each in method.models["spatial"].parameters())


@pytest.mark.parametrize("ages_seconds", [0, 2])
def test_published_checkpoints_load_into_both_models(toy: Path, ages_seconds: int) -> None:
    config = config_of(toy, model={"ages_seconds": ages_seconds, "spatial": {"backbone": "resnet18"}})
    theirs, ours = create(config, 4), create(config, 4)
    names = {"enc_queries": "long_queries", "enc_modules": "long_modules", "dec_modules": "work_modules"}
    state = {}
    for name, each in theirs.network.state_dict().items():
        first, _, rest = name.partition(".")
        state[f"module.{names.get(first, first)}.{rest}"] = each
    checkpoint = {
        "epoch": 25,
        "model_spatial_model_state_dict": theirs.models["spatial"].state_dict(),
        "model_temporal_model_state_dict": state,
    }
    for model in ours.models.values():
        assert load_published(model, checkpoint).complete
    for name, each in theirs.network.state_dict().items():
        assert ours.network.state_dict()[name].equal(each), name
    published = {f"ages_modules.{kind}_{of}_l0" for kind in ("weight", "bias") for of in ("ih", "hh")}
    published |= {f"ages_linears.{i}.{leaf}" for i in (0, 3, 4) for leaf in ("weight", "bias")}
    published |= {f"feature_head_ages.input_linear.0.{leaf}" for leaf in ("weight", "bias")}
    assert {name for name in theirs.network.state_dict() if "ages" in name} == (published if ages_seconds else set())


def test_backbone_weights_are_whole_or_an_error(toy: Path, tmp_path: Path) -> None:
    model = create(config_of(toy), 4).models["spatial"]
    state = {f"backbone.{name}": each for name, each in build_spatial("resnet34").backbone.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "tsn.pth")
    assert "unexpected" in str(load_backbone(model, tmp_path / "tsn.pth"))  # the deeper one holds all of this one
    state.popitem()
    torch.save(
        {"state_dict": {"backbone.conv1.conv.weight": state["backbone.conv1.conv.weight"]}}, tmp_path / "part.pth"
    )
    with pytest.raises(ClipmillError, match="do not fit"):
        load_backbone(model, tmp_path / "part.pth")
    with pytest.raises(ClipmillError, match=r"none\.pth"):
        load_backbone(model, tmp_path / "none.pth")


def test_the_plan_shows_both_models_and_their_rates(toy: Path) -> None:
    partial, whole = (plan_run(config_of(toy, feedback={"keep_ratio": ratio})) for ratio in (0.2, None))
    assert set(partial["models"]) == {"spatial", "temporal"}
    assert partial["rates"]["spatial"]["highest"] == pytest.approx(0.1 * partial["rates"]["temporal"]["highest"])
    assert partial["activation_bytes_per_clip"] < 0.4 * whole["activation_bytes_per_clip"]


@pytest.mark.slow
def test_two_ranks_train_and_evaluate_sessions_of_different_lengths(toy: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(dump(config_of(toy)))
    command = [sys.executable, "-m", "clipmill", "train", "sbp_e2e", "--config", str(recipe)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run"), "train.devices=2"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "mAP" in done.stdout
