"""Recipes: YAML files with `base:` inheritance and dotted overrides, checked against typed models.

An unknown key is an error that names the nearest known one. `load` gives the effective config; `dump` writes it.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from yaml import YAMLError

import configs
from ingest.errors import ClipmillError
from loaders.augment.labels import FlipPolicy


class Strict(BaseModel):
    """A group of settings: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Strict):
    """Clips: where from, how many frames, how large, how augmented. Sizes in pixels."""

    root: Path
    store: Literal["frames-db", "npy", "raw-frames", "historical", "video-file"] = Field(
        "frames-db", description="what the frames lie in; historical and video-file need no conversion"
    )
    labels: tuple[Path, ...] | Path | None = Field(
        None, description="labels of plain videos (store video-file): a file, or several of one format"
    )
    labels_format: str = "labels-csv"
    train_split: str = "train"
    val_split: str = "val"
    test_split: str = "test"
    batch_size: int = Field(ge=1, description="clips per step and device")
    workers: Literal["processes", "threads"] = Field("processes", description="what decodes: processes, or threads")
    num_workers: int | None = Field(None, ge=1, description="how many of them; default: one per core")
    backend: Literal["cpu", "dali"] = Field("cpu", description="who decodes: the workers, or DALI (extra `dali`)")
    depth: int = Field(2, ge=1, description="batches made ahead")
    sampling: Literal["random-interval", "segments", "dense"] = "random-interval"
    num_frames: int = Field(16, ge=1)
    intervals: tuple[int, ...] = Field((1,), min_length=1, description="frames from one to the next; drawn per clip")
    eval_intervals: tuple[int, ...] | None = Field(None, min_length=1, description="default: as in training")
    size: int = Field(112, ge=1, description="height and width of the clip")
    eval_size: int | None = Field(None, ge=1, description="default: as in training")
    short_side: tuple[int, int] = Field((128, 160), description="scale jitter in training")
    eval_short_side: int | None = Field(None, description="default: the smallest of short_side, or eval_size if larger")
    crops: Literal["long-side", "diagonal"] = Field("long-side", description="where the crops of the views lie")
    flip: float = Field(0.5, ge=0, le=1, description="probability of mirroring in training")
    flip_labels: FlipPolicy = Field("swap", description="what a mirrored clip of a class with a left and a right shows")
    augment: str | dict[str, Any] | None = Field(None, description="recipe for training: a name, or operations")
    executor: Literal["fast", "imgaug", "gpu"] = Field("fast", description="who carries the recipe out")
    geometry: Literal["loader", "recipe"] = Field("loader", description="who scales and crops")
    max_bad: float = Field(0.001, ge=0, le=1, description="share of clips that may be replaced before the run stops")
    colour: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    val_views: tuple[int, int] = Field((1, 1), description="(clips, crops) per video")
    test_views: tuple[int, int] = Field((10, 3), description="(clips, crops) per video")


class OptimizerConfig(Strict):
    """SGD with momentum, Adam or AdamW. `lr` belongs to `reference_batch_size` clips per step, if that is given.

    The decay of Adam is L2 (part of the gradient), that of AdamW is decoupled.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(gt=0)
    reference_batch_size: int | None = Field(None, ge=1, description="lr is scaled by (clips per step / this)")
    momentum: float = 0.9
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = 1e-4
    clip_norm: float | None = Field(None, gt=0, description="largest gradient norm")


class ScheduleConfig(Strict):
    """Learning rate over the run: a warm-up, then constant, stepwise, or cosine to `final` times lr. See engine/schedules.py."""

    name: Literal["constant", "step", "multistep", "cosine"] = "cosine"
    every: float = Field(1.0, gt=0, description="step: epochs from one multiplication by gamma to the next")
    milestones: tuple[float, ...] = Field(
        (), description="multistep: epochs after which the rate is multiplied by gamma"
    )
    gamma: float = 0.1
    final: float = Field(0.0, ge=0, le=1, description="cosine: factor that it falls to")
    update: Literal["step", "epoch", "epoch-after-warmup"] = Field("step", description="when the rate changes")
    first_step: Literal[0, 1] = Field(0, description="what the first step counts as, in the warm-up and the cosine")
    warmup_epochs: float = Field(0.0, ge=0)
    warmup_start: float = Field(0.01, ge=0, le=1, description="factor at the first step of the warm-up")
    warmup_curve: Literal["linear", "constant", "exponential"] = "linear"
    warmup_to: Literal["end", "base", "multiply"] = Field(
        "end",
        description="end: it rises to the schedule's value where it ends; base: to lr; multiply: it scales the schedule",
    )
    offset_warmup: bool = Field(True, description="the cosine begins after the warm-up, not with it")

    @model_validator(mode="after")
    def _exponential_from_zero(self) -> ScheduleConfig:
        if self.warmup_epochs and self.warmup_curve == "exponential" and self.warmup_start == 0:
            raise ValueError("an exponential warm-up cannot start at 0")
        return self


class MultigridConfig(Strict):
    """Batches that change shape (loaders/multigrid): `srtg` as SRTG's trainer does it, `wu` after arXiv 1912.00998.

    The plan holds the learning rate's schedule too; `data.batch_size`, `num_frames`, `size` are its full shape.
    """

    name: Literal["off", "srtg", "wu"] = "off"
    long: bool = Field(True, description="long cycle: over an epoch (srtg) or a stage of the learning rate (wu)")
    short: bool = Field(True, description="short cycle: from batch to batch")
    reference: bool = Field(False, description="reproduce the published code where ours differs on purpose")
    epoch_factor: float = Field(1.5, gt=0, description="wu: epochs, relative to the baseline's")

    @field_validator("name", mode="before")
    @classmethod
    def _yaml_off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads a bare `off` as false.


class TrainConfig(Strict):
    """The run: length, precision, devices, what is logged and kept."""

    epochs: int = Field(ge=1)
    accumulate: int = Field(1, ge=1, description="batches per optimizer step; an epoch's last step may hold fewer")
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(1, ge=1)
    nodes: int = Field(1, ge=1)
    find_unused_parameters: bool = Field(False, description="several devices, and parameters that get no gradient")
    compile: bool = Field(False, description="torch.compile the models: slow to start, faster on a GPU")
    channels_last: bool = Field(False, description="convolution weights in channels-last order")
    precise_bn_batches: int = Field(0, ge=0, description="batches for batch norm's statistics before each validation")
    overfit_batches: int = Field(0, ge=0, description="train on the first so many batches alone, to see it can learn")
    log_every: int = Field(10, ge=1, description="steps between two reports")
    tensorboard: bool = Field(True, description="write TensorBoard events, too")
    report: bool = Field(True, description="write report.html at the end")
    validate_every: int = Field(1, ge=1, description="epochs")
    average_views: Literal["prob", "score"] = Field("prob", description="what is averaged over views")
    best: Literal["top1", "top5", "mean_class_accuracy", "mean_average_precision", "loss"] = Field(
        "top1", description="figure of the validation by which best.pt is chosen; ties go to the lower loss"
    )
    save_every: int = Field(1, ge=1, description="epochs between two checkpoints")
    save_every_steps: int | None = Field(None, ge=1, description="steps between two checkpoints within an epoch")
    keep: int = Field(2, ge=1, description="newest checkpoints kept; the best one is kept besides")
    stop_after: float | None = Field(None, gt=0, description="seconds after which the run saves and stops")


class Config(Strict):
    """What every method has; a method adds its `model`."""

    method: str
    seed: int = Field(0, ge=0)
    data: DataConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    optimizers: dict[str, dict[str, Any]] = Field({}, description="per model: what differs from `optimizer`")
    schedules: dict[str, dict[str, Any]] = Field({}, description="per model: what differs from `schedule`")
    multigrid: MultigridConfig = MultigridConfig()
    train: TrainConfig

    def optimizer_of(self, model: str) -> OptimizerConfig:
        """The optimizer of one of the method's models."""
        return _changed(self.optimizer, self.optimizers.get(model, {}), f"optimizers.{model}")

    def schedule_of(self, model: str) -> ScheduleConfig:
        """The schedule of one of the method's models."""
        return _changed(self.schedule, self.schedules.get(model, {}), f"schedules.{model}")

    @model_validator(mode="after")
    def _check_changes(self) -> Config:
        for model in self.optimizers:
            self.optimizer_of(model)
        for model in self.schedules:
            self.schedule_of(model)
        if self.multigrid.name != "off" and self.schedule.name not in ("multistep", "constant"):
            raise ValueError(f"multigrid plans its own rates from milestones: a {self.schedule.name} schedule has none")
        if self.multigrid.name != "off" and self.schedules:
            raise ValueError("multigrid plans one rate: schedules per model cannot go with it")
        return self

    @model_validator(mode="before")
    @classmethod
    def _keep_base_out(cls, values: Any) -> Any:
        return {k: v for k, v in values.items() if k != "base"} if isinstance(values, dict) else values


ConfigT = TypeVar("ConfigT", bound=Config)
GroupT = TypeVar("GroupT", bound=Strict)


def _changed(group: GroupT, changes: dict[str, Any], where: str) -> GroupT:
    """The group with some settings changed. Raises: ValueError naming an unknown key's nearest, or a wrong value."""
    known = type(group).model_fields
    for key in changes:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown config key '{where}.{key}'; the nearest known one is {near!r}")
    try:
        return type(group).model_validate(group.model_dump() | changes)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{where}.{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None


def find(name: str, method: str) -> Path:
    """The file that `--config NAME` means: a path, or the name of a recipe that comes with Clipmill.

    Raises: ClipmillError naming the recipes there are.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = Path(configs.__path__[0]) / method
    if (shipped / f"{name}.yaml").is_file():
        return shipped / f"{name}.yaml"
    names = sorted(file.stem for file in shipped.glob("*.yaml"))
    near = difflib.get_close_matches(path.stem, names, n=1)
    raise ClipmillError(
        f"there is no config {name!r}: neither a file nor a recipe of {method} ({', '.join(names)}).",
        "Nothing was run.",
        f"Did you mean {near[0]!r}?" if near else "Give the path of a YAML file.",
    )


def load(path: Path, overrides: Sequence[str], schema: type[ConfigT]) -> ConfigT:
    """The effective config: `base:` files below the file, the file below the `key=value` overrides.

    Raises: ClipmillError for a file that cannot be read, an unknown key, a value of the wrong kind.
    """
    merged = OmegaConf.merge(_read(path, ()), _from_dotlist(overrides))
    return check(OmegaConf.to_container(merged, resolve=True), schema, str(path))


def check(values: Any, schema: type[ConfigT], source: str, overrides: Sequence[str] = ()) -> ConfigT:
    """`values` (with overrides on top) as a typed config. Raises: ClipmillError as `load` does."""
    if overrides:
        values = OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(values), _from_dotlist(overrides)))
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ClipmillError(_explain(first, schema), f"{source} was not run.", "Mend that key and try again.") from None


def dump(config: Config) -> str:
    """The effective config as YAML text that `load` reads back."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))


def _read(path: Path, seen: tuple[Path, ...]) -> Any:
    if path.resolve() in seen:
        raise ClipmillError(f"{path} inherits from itself.", "Nothing was run.", "Break the circle of base: lines.")
    try:
        own = OmegaConf.load(path)
        if not isinstance(own, DictConfig):
            raise ClipmillError(f"the config {path} is a list, not keys with values.", "Nothing was run.")
        base = own.get("base")
    except OSError as error:
        raise ClipmillError(f"the config {path} cannot be read: {error.strerror}.", "Nothing was run.") from None
    except (YAMLError, OmegaConfBaseException) as error:
        raise ClipmillError(f"the config {path} is no valid YAML: {error}", "Nothing was run.") from None
    if base is None:
        return own
    return OmegaConf.merge(_read(path.parent / str(base), (*seen, path.resolve())), own)


def _from_dotlist(overrides: Sequence[str]) -> Any:
    for override in overrides:
        if "=" not in override or override.startswith("="):
            raise ClipmillError(
                f"{override!r} is no override.", "Nothing was run.", "Overrides look like data.batch_size=8."
            )
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except (YAMLError, OmegaConfBaseException) as error:
        raise ClipmillError(f"the overrides cannot be read: {error}", "Nothing was run.") from None


def _explain(error: Any, schema: type[BaseModel]) -> str:
    """One sentence on a validation error, with the nearest known key where one was not known."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":  # Raised by a validator of ours, which says where.
        return f"{where + ': ' if where else ''}{error['ctx']['error']}."
    if error["type"] != "extra_forbidden":
        given = "" if error["type"] == "missing" else f" (given: {error['input']!r})"
        return f"config key {where!r}: {error['msg'].lower()}{given}."
    known = list(_fields(schema, error["loc"][:-1]))
    near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.0)
    return f"unknown config key {where!r}; the nearest known one is {near[0]!r}."


def _fields(schema: type[BaseModel], path: Sequence[Any]) -> dict[str, Any]:
    for part in path:
        annotation = schema.model_fields[str(part)].annotation
        kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        schema = next(kind for kind in kinds if issubclass(kind, BaseModel))
    return dict(schema.model_fields)
