"""STS's transforms against the authors' code: what is about pixels in imagenet_recipe.npz and functions.npz.

Pillow makes the pictures there and here: exact with the same version, else one level (the vectors' README).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from PIL import Image

from loaders.augment import ClipShape, Drawn, Recipe, draw, steps
from loaders.augment.crops import CentreCrop, RandomResizedCrop, ShortSide, image_crop
from loaders.augment.mix import Mix, draw_mix, mixed, mixed_targets
from loaders.augment.pil_ops import FILL, run_picture
from loaders.augment.randaugment import OPS, RandAugment, argument
from loaders.sampling import SegmentClips
from tests.golden import sts_checks
from tests.golden.augment_rngs import AuthorsRng
from tests.golden.mmaction_pixels import pixels
from tests.golden.vectors import close, from_json, no_unknown, read

Cases = Iterable[tuple[str, Callable[[], None]]]
Arrays = Mapping[str, np.ndarray]

_MINE = ("mixup", "ra", "rrc_pil", "train_tf", "eval_tf", "tf")
_SIZE = 32
_SIZES = ((80, 100), (200, 60), (50, 50), (300, 40))
"""The README: (height, width) of the pictures that are cropped in sequence."""


def _imagenet_recipe(path: Path) -> Cases:
    data = read(path)
    for name, check in sts_checks.CHECKERS["imagenet_recipe"](path):
        if name not in _MINE:
            yield name, check
    mine = [key for key in data if key.partition("/")[0] in _MINE]
    kinds = "ra/(hparams|op_order|level_to_arg_op_negate_m_args|seed[0-9]+/out)"
    yield "keys", partial(no_unknown, mine, kinds, "mixup/(settings|seed[0-9]+/(imgs|target))", "tf/settings",
                          "rrc_pil/seed[0-9]+", "rrc_pil/seed[0-9]+/i_j_h_w", "train_tf/seed[0-9]+/out",
                          "eval_tf/seed[0-9]+/pct[0-9.]+/out")  # fmt: skip
    for key in mine:
        group, _, rest = key.partition("/")
        seed = int(rest.partition("/")[0].removeprefix("seed")) if rest.startswith("seed") else -1
        if key in _WHOLE:
            yield key, partial(_WHOLE[key], data)
        elif group in _BY_SEED and not key.endswith("/target"):
            yield key, partial(_BY_SEED[group], data, key, seed)


def _functions(path: Path) -> Cases:
    data = read(path)
    for name, check in sts_checks.CHECKERS["functions"](path):
        yield name, partial(_pipe, data, name.partition("/")[0]) if name.endswith("/pixels") else check


def _pipe(data: Arrays, pipe: str) -> None:
    known = "settings|frame_inds|shape|stat|imgs|imgs_last1000|crop_quadruple|flip|crop_bbox|scale_factor|img_shape"
    no_unknown([key for key in data if key.startswith(f"{pipe}/")], f"{pipe}/({known})")
    settings = from_json(data[f"{pipe}/settings"])
    keys = "config|split|scale_divisor|seed|total_frames|H|W|sample_frames|steps"
    no_unknown(settings, keys)
    seed, size = settings["seed"], (settings["H"], settings["W"])
    frames = np.random.RandomState(seed).randint(0, 256, (settings["total_frames"], *size, 3)).astype(np.uint8)
    rng, sample = AuthorsRng(seed, "uniform random"), settings["sample_frames"]
    no_unknown(sample, "clip_len|frame_interval|num_clips|test_mode")
    if not sample.get("test_mode"):  # frames are sampled first, by the same generator
        sampler = SegmentClips(sample["num_clips"], sample["clip_len"], sample["frame_interval"])
        assert sampler.draw(len(frames), rng.numpy).tolist() == data[f"{pipe}/frame_inds"].tolist()
    found = pixels(frames[data[f"{pipe}/frame_inds"]], settings["steps"], rng, sample["num_clips"], sample["clip_len"])
    assert list(found.shape) == data[f"{pipe}/shape"].tolist()
    flat = found.ravel()
    close("pixels", flat[: data[f"{pipe}/imgs"].size], data[f"{pipe}/imgs"].ravel(), 1e-5)
    close("last pixels", flat[-data[f"{pipe}/imgs_last1000"].size :], data[f"{pipe}/imgs_last1000"], 1e-5)


def _picture(seed: int, height: int, width: int) -> np.ndarray:
    """The README's: small noise, enlarged."""
    small = np.random.RandomState(seed).randint(0, 256, (height // 4 + 2, width // 4 + 2, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def _shape(picture: np.ndarray) -> ClipShape:
    return ClipShape(1, *picture.shape[:2])


def _same(picture: np.ndarray, expected: np.ndarray) -> None:
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected).max() == 0


def _hparams(data: Arrays) -> None:
    hparams = from_json(data["ra/hparams"])
    no_unknown(hparams, "translate_const|img_mean|interpolation")
    assert hparams["img_mean"] == list(FILL)
    assert hparams["interpolation"] == Image.Resampling.BICUBIC


def _order(data: Arrays) -> None:
    assert data["ra/op_order"].tolist() == list(OPS)


class _Sign:
    """Draws whether a sign is turned, and nothing else."""

    def __init__(self, turned: bool) -> None:
        self._turned = turned

    def random(self) -> float:
        return 0.9 if self._turned else 0.1


def _arguments(data: Arrays) -> None:
    for name, turned, magnitude, expected in from_json(data["ra/level_to_arg_op_negate_m_args"]):
        found = argument(name, magnitude, _Sign(turned))  # type: ignore[arg-type]
        assert ([] if found is None else [found]) == pytest.approx(expected, rel=1e-12), (name, magnitude)


def _settings(data: Arrays) -> None:
    no_unknown(from_json(data["tf/settings"]), "note|seeds")


def _mixup_settings(data: Arrays) -> None:
    no_unknown(from_json(data["mixup/settings"]), "K|B|shape|note|seeds")


def _mixup(data: Arrays, key: str, seed: int) -> None:
    settings = from_json(data["mixup/settings"])
    rng = AuthorsRng(seed, "random uniform integers")
    number, shape = settings["B"], settings["shape"]
    pictures = [np.random.RandomState(100 * seed + i).randint(0, 256, shape).astype(np.uint8) for i in range(number)]
    labels = np.array([(seed + 2 * i) % settings["K"] for i in range(number)])
    drawn = draw_mix(Mix(), rng, (shape[1], shape[2]))
    _same(mixed(np.stack(pictures), drawn), data[key])
    close("targets", mixed_targets(labels, settings["K"], drawn), data[f"mixup/seed{seed}/target"], 1e-6)


def _rand_augment(data: Arrays, key: str, seed: int) -> None:
    picture = _picture(seed, 24, 32)
    drawn = draw(Recipe((RandAugment(),)), AuthorsRng(seed, "integers"), _shape(picture))
    _same(run_picture(picture, drawn), data[key])


def _boxes(data: Arrays, key: str, seed: int) -> None:
    rng = AuthorsRng(seed)
    boxes = [image_crop(size, rng, (0.08, 1.0), (3 / 4, 4 / 3)) for size in _SIZES]
    assert [[box.top, box.left, box.height, box.width] for box in boxes] == data[key].tolist()


def _train(data: Arrays, key: str, seed: int) -> None:
    """Cropped (Python), mirrored (torch), RandAugment (both); three generators, all seeded alike."""
    picture, rng = _picture(seed, 70, 90), AuthorsRng(seed)
    shape = _shape(picture)
    crop = RandomResizedCrop(_SIZE, _SIZE, rule="image", interpolation="cubic")
    found = list(draw(Recipe((crop,)), rng, shape).steps)
    if torch.rand(1, generator=torch.Generator().manual_seed(seed)) < 0.5:
        found.append(steps.Flip())
    rng.numpy_for = ["integers"]
    found += draw(Recipe((RandAugment(),)), rng, ClipShape(1, _SIZE, _SIZE)).steps
    _same(run_picture(picture, Drawn(shape, tuple(found), (_SIZE, _SIZE))).transpose(2, 0, 1), data[key])


def _eval(data: Arrays, key: str, seed: int) -> None:
    picture = _picture(seed, 50, 70)
    share = float(key.split("/")[2].removeprefix("pct"))
    recipe = Recipe((ShortSide(int(_SIZE / share), "cubic", "down"), CentreCrop(_SIZE, _SIZE, "half_even")))
    _same(run_picture(picture, draw(recipe, AuthorsRng(0), _shape(picture))).transpose(2, 0, 1), data[key])


_WHOLE: Mapping[str, Callable[[Arrays], None]] = MappingProxyType(
    {
        "ra/hparams": _hparams,
        "ra/op_order": _order,
        "ra/level_to_arg_op_negate_m_args": _arguments,
        "tf/settings": _settings,
        "mixup/settings": _mixup_settings,
    }
)
_BY_SEED: Mapping[str, Callable[[Arrays, str, int], None]] = MappingProxyType(
    {"mixup": _mixup, "ra": _rand_augment, "rrc_pil": _boxes, "train_tf": _train, "eval_tf": _eval}
)

CHECKERS = MappingProxyType({"imagenet_recipe": _imagenet_recipe, "functions": _functions})
