"""Train and test as whole jobs: config in, a run's folder out. What the command line calls."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ingest.atomic import replacing, write_text
from ingest.errors import ClipmillError
from trainers.config import Config, check
from trainers.data import make_loader
from trainers.engine import checkpoints
from trainers.engine.loop import Evaluation, evaluate, make_fabric, train
from trainers.engine.optimizers import build_optimizer
from trainers.engine.run import Run, Stopped
from trainers.engine.weights import load_matching, read_checkpoint
from trainers.method import Method, find_method
from trainers.metrics import mean_class_accuracy


def run_training(config: Config, folder: Path, *, resume: str | None = None, init: Path | None = None) -> Run:
    """Train into `folder`. `resume` is `auto` or a checkpoint: everything goes on; `init`: weights only.

    Raises: ClipmillError when the folder holds another run, or data, config or checkpoint do not fit; Stopped.
    """
    fabric = make_fabric(config)
    own = checkpoints.CheckpointFolder(folder / "checkpoints", config.train.keep)
    found = own.newest() if resume == "auto" else Path(resume) if resume else None
    if resume is None and (own.newest() or (folder / "steps.csv").exists()):
        raise ClipmillError(
            f"{folder} holds a run already.",
            "Nothing was trained, nothing was overwritten.",
            "Go on with it: --resume auto. Or take another folder: --out DIR",
        )
    torch.manual_seed(config.seed)
    loader = make_loader(config, "train", rank=fabric.global_rank, world_size=fabric.world_size)
    validation = make_loader(config, "val", rank=fabric.global_rank, world_size=fabric.world_size)
    module = find_method(config.method)
    method: Method = module.create(config, len(loader.dataset.class_names))
    if init is not None and found is None:
        print(_initialise(module, method, init))
    optimizers = {}
    for name, groups in method.param_groups().items():
        optimizer = build_optimizer(config.optimizer, groups, config.optimizer.lr)
        method.models[name], optimizers[name] = fabric.setup(method.models[name], optimizer)
    run = Run(folder, config, fabric, method, optimizers, loader)
    if found is not None:
        run.resume(found)
        print(f"Resuming {found.name}: epoch {run.epoch}, step {run.step}.")
    folder.mkdir(parents=True, exist_ok=True)
    run.start()
    state = "failed"
    try:
        train(fabric, method, run, validation)
        state = "finished"
    except Stopped:
        state = "stopped"
        raise
    finally:
        loader.close()
        validation.close()
        run.end(state)
    return run


def run_test(checkpoint: Path, overrides: Sequence[str] = (), method_name: str | None = None) -> dict[str, Any]:
    """Test the model of a checkpoint on its config's test split, all views. Writes `test.json` and `test.npz`.

    They lie in the run's folder: the figures, and per video id the probabilities (videos, classes) and labels.

    Raises: ClipmillError when checkpoint, overrides or data do not fit.
    """
    started = time.perf_counter()
    state = checkpoints.read(checkpoint)
    name = state["config"]["method"]
    if method_name not in (None, name):
        raise ClipmillError(
            f"{checkpoint} is a checkpoint of {name}, not of {method_name}.",
            "Nothing was tested.",
            f"Run: clipmill test {name}",
        )
    module = find_method(name)
    config: Config = check(state["config"], module.MethodConfig, str(checkpoint), overrides)
    fabric = make_fabric(config)
    loader = make_loader(config, "test", rank=fabric.global_rank, world_size=fabric.world_size)
    if loader.dataset.class_names != state["class_names"]:
        raise ClipmillError(
            f"{config.data.root} has other classes than the model was trained on"
            f" ({len(loader.dataset.class_names)} instead of {len(state['class_names'])}, or in another order).",
            "Nothing was tested: the scores would be of the wrong classes.",
            "Test on a root that was ingested with the same class list.",
        )
    method: Method = module.create(config, len(state["class_names"]))
    for key, model in method.models.items():
        model.load_state_dict(state["models"][key])
        method.models[key] = fabric.setup_module(model)
    with loader:
        result = evaluate(fabric, method, loader)
    figures = _figures(result, config, loader.dataset.class_names, time.perf_counter() - started)
    figures["checkpoint_step"] = state["step"]
    if fabric.is_global_zero:
        folder = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
        write_text(folder / "test.json", json.dumps(figures, indent=2))
        with replacing(folder / "test.npz") as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                video_ids=np.array(loader.dataset.video_ids),
                probabilities=result.probabilities.numpy(),
                labels=result.labels.numpy(),
            )
    return figures


def _figures(result: Evaluation, config: Config, class_names: list[str], seconds: float) -> dict[str, Any]:
    return result.meter.means() | {
        "mean_class_accuracy": mean_class_accuracy(result.confusion),
        "videos": len(result.labels),
        "views": list(config.data.test_views),
        "clips": result.num_clips,
        "seconds": seconds,
        "class_names": class_names,
        "confusion": result.confusion.tolist(),
    }


def _initialise(module: ModuleType, method: Method, path: Path) -> str:
    """Weights only, by name and shape, from our checkpoints or an authors' file. Returns the report.

    Raises: ClipmillError when the file is none, or nothing in it fits.
    """
    try:
        content = read_checkpoint(path)
        lines = []
        for name, model in method.models.items():
            if "models" in content:
                report = load_matching(model, content["models"][name])
            else:
                report = module.load_published(model, content)
            lines.append(f"--init {path.name}, {name}: {report}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, pickle.UnpicklingError) as error:
        raise ClipmillError(
            f"--init {path}: {error}", "Nothing was trained.", "Give a checkpoint of the same network."
        ) from None
    return "\n".join(lines)
