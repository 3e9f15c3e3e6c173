"""Train and test as whole jobs: config in, a run's folder out. What the command line calls."""

from __future__ import annotations

import contextlib
import json
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from lightning_fabric import Fabric

from ingest.atomic import write_text
from ingest.errors import ClipmillError
from trainers.batch_norm import sub_batch_norms, to_sub
from trainers.config import Config, check
from trainers.data import Split, TrainLoader
from trainers.data import make_loader as make_clip_loader
from trainers.engine import checkpoints
from trainers.engine.evaluation import evaluate, save_scores, without_ranks
from trainers.engine.loop import make_fabric, train
from trainers.engine.optimizers import build_optimizer
from trainers.engine.overfit import OverfitLoader
from trainers.engine.run import Run, Stopped
from trainers.engine.weights import LoadReport, load_matching, read_checkpoint
from trainers.method import Method, find_method


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
    fabric.barrier()  # Nobody writes there before all have looked.
    torch.manual_seed(config.seed)
    module = find_method(config.method)
    with contextlib.ExitStack() as stack:
        loader: TrainLoader = stack.enter_context(contextlib.closing(loader_of(module, config, "train", fabric)))
        num_epochs = loader.plan.num_epochs if loader.plan is not None else config.train.epochs
        if config.train.overfit_batches:
            loader = OverfitLoader(loader, config.train.overfit_batches)
        validation = stack.enter_context(contextlib.closing(loader_of(module, config, "val", fabric)))
        method: Method = module.create(config, len(loader.dataset.class_names))
        if init is not None and found is None:
            print(_initialise(module, method, init))
        run = Run(folder, config, fabric, method, _prepare(fabric, method, config), loader, num_epochs)
        if found is not None:
            run.resume(found)
            print(f"Resuming {found.name}: epoch {run.epoch}, step {run.step}.")
        folder.mkdir(parents=True, exist_ok=True)
        run.start()
        state = "failed"
        try:
            train(fabric, method, run, validation, module)
            state = "finished"
        except Stopped:
            state = "stopped"
            raise
        finally:
            run.end(state)
    if config.train.report and fabric.is_global_zero:
        _write_report(module, run)
    return run


def run_test(checkpoint: Path, overrides: Sequence[str] = (), method_name: str | None = None) -> dict[str, Any]:
    """Test the model of a checkpoint on its config's test split, all views. Writes `test.json` and `test.npz`.

    They lie in the run's folder: the figures, and per video id the mean scores (videos, classes) and labels.

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
    with contextlib.closing(loader_of(module, config, "test", fabric)) as loader:
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
        with without_ranks(fabric, method):
            result = getattr(module, "evaluate", evaluate)(fabric, method, loader, average=config.train.average_views)
    figures = result.figures | {
        "videos": len(result.labels),
        "bad_videos": result.bad_videos,
        "views": list(config.data.test_views),
        "average": config.train.average_views,
        "clips": result.num_clips,
        "seconds": time.perf_counter() - started,
        "class_names": loader.dataset.class_names,
        "confusion": result.confusion.tolist() if result.confusion is not None else None,
        "checkpoint_step": state["step"],
        **result.extra,
    }
    if fabric.is_global_zero:
        folder = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
        write_text(folder / "test.json", json.dumps(figures, indent=2))
        save = getattr(module, "save_results", None) or (lambda result, to: save_scores(result, to / "test.npz"))
        save(result, folder)
    return figures


def loader_of(module: ModuleType, config: Config, split: Split, fabric: Fabric) -> Any:
    """The loader of a split: of clips, unless the method reads something else."""
    make = getattr(module, "make_loader", make_clip_loader)
    return make(config, split, rank=fabric.global_rank, world_size=fabric.world_size)


def _prepare(fabric: Fabric, method: Method, config: Config) -> dict[str, Any]:
    """Optimizers by model; the models are made ready for devices and precision, compiled where the config says so."""
    optimizers = {}
    for name, groups in method.param_groups().items():
        model = method.models[name]
        if config.train.channels_last:
            for module in model.modules():
                if isinstance(module, torch.nn.Conv3d):
                    module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if config.train.compile:
            model.compile()
        settings = config.optimizer_of(name)
        method.models[name], optimizers[name] = fabric.setup(model, build_optimizer(settings, groups, settings.lr))
    for name, model in method.models.items():
        if name not in optimizers:  # A teacher, which is not trained.
            method.models[name] = fabric.to_device(model)
    return optimizers


def _initialise(module: ModuleType, method: Method, path: Path) -> str:
    """Weights only, by name and shape, from our checkpoints or an authors' file. Returns the report.

    Raises: ClipmillError when the file is none, or nothing in it fits.
    """
    try:
        content = read_checkpoint(path)
        lines = []
        for name, model in method.models.items():
            report: LoadReport
            if "models" in content:
                if name not in content["models"]:
                    lines.append(f"--init {path.name}, {name}: not in the file, left as it is")
                    continue
                state = content["models"][name]
                if norms := sub_batch_norms(model):  # The file may be of plain batch norms.
                    state = to_sub(state, norms)
                report = load_matching(model, state)
            else:
                report = module.load_published(model, content)
            if (told := getattr(method, "initialised", None)) is not None:
                told(name, report)
            lines.append(f"--init {path.name}, {name}: {report}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, pickle.UnpicklingError) as error:
        raise ClipmillError(
            f"--init {path}: {error}", "Nothing was trained.", "Give a checkpoint of the same network."
        ) from None
    return "\n".join(lines)


def _write_report(module: ModuleType, run: Run) -> None:
    """`report.html` of a finished run, from its best checkpoint. A report that fails does not fail the run."""
    from trainers.run_report import write_run_report

    try:
        print(f"Look at {write_run_report(run.folder, module)}")
    except Exception as error:  # Whatever a plot may raise, the training is done and saved.
        print(f"The report could not be written: {type(error).__name__}: {error}")
