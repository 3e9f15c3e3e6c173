"""Recipes through the loader: the same for all frames and workers, in every executor, with labels that follow flips."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from loaders.augment import Recipe, draw, flip_labels, recipe_by_name, run_fast
from loaders.augment.crops import RandomResizedCrop
from loaders.augment.recipe import Add, ClipShape, Flip, Rotate
from loaders.augment.values import Uniform
from loaders.clips import ClipSpec
from loaders.order import sample_rng
from loaders.sampling import RandomInterval
from tests.loaders.conftest import MakeLoader
from tests.loaders.samples import digest, training_spec

SRTG = recipe_by_name("srtg-code")


@pytest.mark.parametrize("name", ["srtg-code", "srtg-readme"])
def test_the_stream_is_the_same_for_any_workers(make_loader: MakeLoader, name: str) -> None:
    spec = training_spec(augment=recipe_by_name(name))
    expected = [digest(batch) for batch in make_loader(spec)]
    assert expected == [digest(batch) for batch in make_loader(spec, num_workers=3)]
    assert expected == [digest(batch) for batch in make_loader(spec, workers="processes")]
    assert expected != [digest(batch) for batch in make_loader(training_spec())]


def test_frames_and_crops_are_drawn_as_without_a_recipe(make_loader: MakeLoader) -> None:
    for plain, augmented in zip(make_loader(), make_loader(training_spec(augment=SRTG)), strict=True):
        assert plain.video_ids == augmented.video_ids
        assert plain.frame_indices.equal(augmented.frame_indices)


def test_what_comes_is_the_recipe_on_what_would_have_come(make_loader: MakeLoader) -> None:
    """Colour alone to the level; turned pictures nearly, as they are warped once and not twice."""
    for recipe, most in (
        (Recipe((Add(Uniform(-40, 40), per_channel=True),)), 0),
        (Recipe((Rotate(Uniform(-9, 9)),)), 12),
    ):
        plain = make_loader(training_spec(flip=0.0))
        augmented = make_loader(training_spec(flip=0.0, augment=recipe))
        k = 0
        for before, after in zip(plain, augmented, strict=True):
            for clip, got in zip(before.frames.numpy(), after.frames.numpy(), strict=True):
                rng = sample_rng(0, 0, k)
                _replay(rng, plain, int(before.videos[k % 4]))
                expected = run_fast(clip, draw(recipe, rng, ClipShape(*clip.shape[:3])))
                assert np.abs(expected.astype(int) - got).mean() <= most
                k += 1


def _replay(rng: np.random.Generator, loader, video: int) -> None:
    """All that is drawn before the recipe."""
    spec, dataset = loader.spec, loader.dataset
    spec.sampler.draw(int(dataset.num_frames[video]), rng)
    level = dataset.levels(video)[0]
    side = int(rng.integers(*spec.short_side, endpoint=True))
    factor = side / min(level.height, level.width)
    size = [max(round(n * factor), 32) for n in (level.height, level.width)]
    for n in size:
        rng.integers(0, n - 32, endpoint=True)
    rng.random()


def test_all_executors_give_nearly_the_same(make_loader: MakeLoader) -> None:
    if find_spec("imgaug") is None:
        pytest.skip("needs the extra `imgaug`")
    colour = Recipe((Add(Uniform(-40, 40), per_channel=True), Flip(0.5)))
    for recipe, most in ((colour, 1), (SRTG, 14)):
        fast, reference, gpu = (
            make_loader(training_spec(augment=recipe, executor=name)) for name in ("fast", "imgaug", "gpu")
        )
        for one, two, three in zip(fast, reference, gpu, strict=True):
            assert np.abs(one.frames.numpy().astype(int) - two.frames.numpy()).mean() <= most
            norm = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
            on_device = three.normalized(*norm)
            assert np.abs(on_device.numpy() - one.normalized(*norm).numpy()).mean() <= most


def test_a_recipe_may_scale_and_crop_by_itself(make_loader: MakeLoader) -> None:
    recipe = Recipe((RandomResizedCrop(32, 32), Flip(0.5)))
    spec = training_spec(augment=recipe, geometry="recipe")
    expected = [digest(batch) for batch in make_loader(spec)]
    assert expected == [digest(batch) for batch in make_loader(spec, workers="processes")]
    batch = next(iter(make_loader(spec)))
    assert batch.frames.shape[1:] == (4, 32, 32, 3)
    assert batch.frames.float().std() > 10  # a picture, not black


def test_a_mirrored_clip_shows_the_opposite_class(make_loader: MakeLoader) -> None:
    """The classes of the data set stand for left and right here."""
    rule = flip_labels(["to the left", "still", "to the right"])
    plain = make_loader(training_spec(flip=0.0))
    for flips, spec in (
        (1, training_spec(flip=1.0, flip_labels=rule)),
        (0, training_spec(flip=0.0, flip_labels=rule)),
        (2, training_spec(flip=1.0, augment=Recipe((Flip(1.0),)), flip_labels=rule)),
        (1, training_spec(flip=0.0, augment=Recipe((Flip(1.0),)), flip_labels=rule)),
    ):
        for before, after in zip(plain, make_loader(spec), strict=True):
            swapped = [{0: 2, 1: 1, 2: 0}[label] if flips % 2 else label for label in before.labels.tolist()]
            assert after.labels.tolist() == swapped
            turned = before.frames.flip(3) if flips % 2 else before.frames
            assert (turned.int() - after.frames.int()).abs().float().mean() < 3
        plain = make_loader(training_spec(flip=0.0))


def test_forbidden_flips_are_left_out_of_loader_and_recipe(make_loader: MakeLoader) -> None:
    rule = flip_labels(["to the left", "still", "to the right"], "forbid-all")
    spec = training_spec(flip=1.0, augment=Recipe((Flip(1.0),)), flip_labels=rule)
    for before, after in zip(make_loader(training_spec(flip=0.0)), make_loader(spec), strict=True):
        assert after.labels.equal(before.labels)
        assert after.frames.equal(before.frames)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "abacus"}, "not both known"),
        ({"geometry": "recipe"}, "needs a recipe"),
        ({"geometry": "recipe", "augment": SRTG, "executor": "gpu"}, "sees single clips"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipSpec(RandomInterval(4), 32, 32, (32, 32), **options)
