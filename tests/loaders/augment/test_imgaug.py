"""imgaug under NumPy 2: it loads, NumPy is left as it was, and without it the error says what to install."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from loaders.augment import ClipShape, Drawn, run_imgaug, steps
from tests.loaders.augment.pictures import clip

CLIP = clip(2, 20, 30)
SHAPE = ClipShape(2, 20, 30)
with_imgaug = pytest.mark.skipif(find_spec("imgaug") is None, reason="needs the extra: pip install 'clipmill[imgaug]'")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


@with_imgaug
def test_numpy_is_left_as_it_was():
    code = """
import numpy as np
before = set(dir(np)), {name: name in np.__dict__ for name in ("sctypes", "bool", "complex")}
from loaders.augment.imgaug_shim import import_augmenters
iaa = import_augmenters()
assert ({name: name in np.__dict__ for name in ("sctypes", "bool", "complex")}) == before[1]
print(iaa.__name__)
"""
    assert run_python(code) == "imgaug.augmenters"


def test_recipes_and_the_other_executors_do_not_load_imgaug():
    assert run_python("import sys, loaders.augment; print('imgaug' in sys.modules)") == "False"


def test_without_imgaug_the_error_names_the_extra():
    code = """
import sys
sys.modules["imgaug"] = None
from loaders.augment.imgaug_shim import import_augmenters
try:
    import_augmenters()
except ImportError as error:
    print(error)
"""
    assert "pip install 'clipmill[imgaug]'" in run_python(code)


@with_imgaug
def test_the_clip_is_left_as_it_is():
    before = CLIP.copy()
    for step in (steps.Add((20, 20, 20)), steps.Flip(), steps.HueSaturation(5, 5), steps.GaussianBlur(1.0)):
        out = run_imgaug(CLIP, Drawn(SHAPE, (step,), SHAPE.size))
        assert not np.array_equal(out, CLIP)
        assert np.array_equal(CLIP, before)
    assert run_imgaug(CLIP, Drawn(SHAPE, (), SHAPE.size)) is not CLIP


@with_imgaug
def test_crops_and_sizes():
    drawn = Drawn(SHAPE, (steps.Crop(2, 3, 10, 12), steps.Resize(16, 18, "cubic")), (16, 18))
    assert run_imgaug(CLIP, drawn).shape == (2, 16, 18, 3)


@with_imgaug
def test_what_imgaug_has_nothing_for_is_named():
    with pytest.raises(TypeError, match="imgaug has nothing for PilOps"):
        run_imgaug(CLIP, Drawn(SHAPE, (steps.PilOps(()),), SHAPE.size))
