"""Which parameters learn at which rate: all alike from scratch, in groups when a trained network is fine-tuned."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn

_RECURRENT = ("lstm.", ".op.")
_HEAD = "fc."


def fine_tuning_groups(
    model: nn.Module, *, backbone: float, recurrent: float, head: float, fresh: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Parameter groups `backbone` (convolutions and norms), `recurrent` and `head`, each with its `lr_mult`.

    Parameters called by `fresh` (not in the file that the network began from) learn as the head does, at its rate.
    """
    groups: dict[str, list[nn.Parameter]] = {"backbone": [], "recurrent": [], "head": []}
    for name, parameter in model.named_parameters():
        if name.startswith(_HEAD) or name in fresh:
            groups["head"].append(parameter)
        elif any(part in name for part in _RECURRENT):
            groups["recurrent"].append(parameter)
        else:
            groups["backbone"].append(parameter)
    rates = {"backbone": backbone, "recurrent": recurrent, "head": head}
    return [{"name": name, "params": params, "lr_mult": rates[name]} for name, params in groups.items()]


def published_groups(names: Iterable[str], *, fine_tune: bool) -> Mapping[str, tuple[float, list[str]]]:
    """The four groups of the authors' trainer: name -> (lr_mult, parameters), some of them empty.

    Fine-tuning there slows the classifier down like everything else but the LSTMs: it is called `fc`, and they look for
    `classifier`. GRUs count as convolutions.
    """
    names = list(names)
    transposed = any("transpose" in name for name in names)
    late = [name for name in names if "lstm" in name or "transpose" in name]
    rest = [name for name in names if name not in late]
    if not fine_tune:
        return {
            "base": (1.0, []),
            "new": (1.0, rest),
            "rec": (1.0, []),
            "transpose": (0.8 if transposed else 1.0, late),
        }
    classifier = [name for name in rest if name.startswith("classifier")]
    return {
        "base": (0.6, [name for name in rest if name not in classifier]),
        "new": (0.1 if classifier else 1.0, classifier),
        "rec": (0.5, []),
        "transpose": (0.2 if transposed else 1.0, late),
    }
