"""The authors' published files -> our networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any

from torch import Tensor, nn

from trainers.batch_norm import sub_batch_norms, to_sub
from trainers.engine.weights import LoadReport, load_matching, read_checkpoint, without_prefix


@dataclass(frozen=True)
class PublishedReport(LoadReport):
    """What became of every tensor, and what is known about files that look like this one."""

    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  note: {note}" for note in self.notes)])


def load_published(model: nn.Module, checkpoint: str | PathLike[str] | Mapping[str, Any]) -> PublishedReport:
    """Load a file of the authors, or what it holds, into `model` and report on every tensor.

    They are dicts {epoch, state_dict, optimizer}, with `module.` before every name; a bare state dict is taken too.
    Tensors load by name and shape, so a file with another number of classes loads all but `fc.*`. Read the report:
    users found published files that are not what their table says (classes, network), and bottleneck files from
    before June 2020 may hold stages four times as wide.

    Raises: TypeError if it is no state dict, ValueError if not a single tensor fits the model.
    """
    if isinstance(checkpoint, str | PathLike):
        checkpoint = read_checkpoint(checkpoint)
    if not isinstance(checkpoint, Mapping):
        raise TypeError(f"an SRTG checkpoint is a dict, this one is {type(checkpoint).__name__}")
    state: Mapping[str, Tensor] = without_prefix(checkpoint.get("state_dict", checkpoint), "module.")
    if norms := sub_batch_norms(model):
        state = to_sub(state, norms)
    report = load_matching(model, state)
    return PublishedReport(
        **{field.name: getattr(report, field.name) for field in fields(report)}, notes=tuple(_notes(report))
    )


def _notes(report: LoadReport) -> Iterator[str]:
    shapes = {each.name: each for each in report.mismatched}
    if head := shapes.get("fc.weight"):
        yield (
            f"the file has {head.checkpoint[0]} classes, the model {head.model[0]}: the classifier keeps its fresh"
            " weights (users found published files with other classes than their table says)"
        )
    wide = [each for each in report.mismatched if each.name.startswith("layer") and len(each.checkpoint) == 5]
    if any(each.checkpoint[0] == 4 * each.model[0] for each in wide):
        yield "stages four times as wide: bottlenecks from before June 2020, which this network is not"
    if any(".sar." in name for name in report.missing):
        yield (
            "the file has no recursion: the authors' resolver built the plain network under every srtg_ name"
            " (srtg_r3d_34 gave r3d_34), so take the same name without srtg_ to test this file"
        )
    if any(".sar." in name for name in report.unexpected):
        yield "the file has recursion that the model lacks: take the same name with srtg_"
