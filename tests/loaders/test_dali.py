"""The backend on DALI: all but the pixels is that of the CPU engine, to the last index, also where frames are damaged."""

from __future__ import annotations

import sqlite3
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ingest.convert import convert
from ingest.errors import ClipmillError
from ingest.options import ConvertOptions
from ingest.plan import plan_folders
from loaders import ClipBatch, ClipDataset, ClipError, ClipLoader
from loaders.augment import Recipe, recipe_by_name
from loaders.augment.crops import RandomResizedCrop
from loaders.reading import FrameReader
from tests.ingest.videos import make_video
from tests.loaders import test_shapes
from tests.loaders.conftest import MakeLoader
from tests.loaders.samples import digest, evaluation_spec, stored_frame, training_spec
from tests.loaders.test_bad_samples import recorded
from tests.loaders.test_faults import NAME, VIDEO, change, database, run_to_the_error

pytest.importorskip("nvidia.dali", reason="needs the extra: pip install 'clipmill[dali]'")

from loaders.dali import DaliEngine
from loaders.dali_pipeline import DaliError, Decoder

many = test_shapes.many  # a root of 130 videos
BOTH = ("cpu", "dali")
SPECS = {"training": training_spec(), "evaluation": evaluation_spec()}


@pytest.fixture(autouse=True)
def _no_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are of the CPU path, also on a machine with a GPU; those of the GPU's are marked."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def said(batch: ClipBatch) -> tuple:
    """All that a batch says, but its pixels."""
    return (
        tuple(batch.frames.shape),
        batch.labels.tolist(),
        batch.video_ids,
        batch.videos.tolist(),
        batch.frame_indices.tolist(),
        batch.view.tolist(),
        batch.epoch,
        batch.position,
        batch.lr_factor,
    )


def stream(loader: ClipLoader, epochs: int = 1) -> list[tuple]:
    return [(said(batch), loader.state_dict()) for _ in range(epochs) for batch in loader]


def engine_of(loader: ClipLoader) -> DaliEngine:
    assert isinstance(loader._engine, DaliEngine)
    return loader._engine


def dali_threads() -> list[str]:
    """Threads of ours and, where the system tells, of DALI's own."""
    found = [thread.name for thread in threading.enumerate() if thread.name.startswith("clipmill-")]
    tasks = Path("/proc/self/task")
    return found + [name for task in tasks.glob("*/comm") if "DALI" in (name := task.read_text())]


# The stream


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_order_labels_frames_views_and_state_are_those_of_the_cpu(make_loader: MakeLoader, spec) -> None:
    cpu, dali = (stream(make_loader(spec, batch_size=3, seed=5, backend=backend), epochs=3) for backend in BOTH)
    assert dali == cpu
    assert len(dali) == 3 * (4 if spec.views is None else 26)


def test_the_stream_is_the_same_for_any_number_of_threads_and_any_depth(make_loader: MakeLoader, monkeypatch) -> None:
    expected = [digest(batch) for batch in make_loader(batch_size=5, backend="dali")]
    for num_workers, depth in ((1, 0), (3, 4)):
        loader = make_loader(batch_size=5, backend="dali", num_workers=num_workers, depth=depth)
        assert [digest(batch) for batch in loader] == expected
    monkeypatch.setattr("loaders.dali_pipeline._MOST_ON_CPU", (7, 9_999))  # neither whole clips nor whole batches
    assert [digest(batch) for batch in make_loader(batch_size=5, backend="dali")] == expected


def test_a_stream_begun_on_the_cpu_goes_on_with_dali_and_back(make_loader: MakeLoader) -> None:
    whole = stream(make_loader(batch_size=2), epochs=2)
    for first, second in (BOTH, BOTH[::-1]):
        begun = make_loader(batch_size=2, backend=first)
        for batch in begun:
            if batch.position == 4:
                break
        rest = make_loader(batch_size=2, backend=second)
        rest.load_state_dict(begun.state_dict())
        assert stream(rest, epochs=2) == whole[3:]


def test_ranks_share_what_one_rank_would_get(make_loader: MakeLoader) -> None:
    whole = [batch.frames.clone() for batch in make_loader(batch_size=4, backend="dali")]
    ranks = [make_loader(batch_size=2, backend="dali", rank=rank, world_size=2) for rank in range(2)]
    parts = [torch.cat([one.frames, other.frames]) for one, other in zip(*ranks, strict=True)]
    assert all(map(torch.equal, whole, parts)) and len(whole) == len(parts)


def test_batches_change_their_shape_by_a_plan_in_one_pipeline(make_loader: MakeLoader, many: Path, monkeypatch) -> None:
    built = []
    build = Decoder._build
    monkeypatch.setattr(Decoder, "_build", lambda self: built.append(self) or build(self))
    loaders = [make_loader(at=many, batch_size=None, shapes=test_shapes.wu(), backend=backend) for backend in BOTH]
    cpu, dali = (stream(loader, epochs=6) for loader in loaders)
    assert dali == cpu
    assert len({one[0][0] for one in dali}) > 3
    assert len(built) == 1


def test_a_video_too_short_for_the_clip_repeats_one_frame(make_loader: MakeLoader) -> None:
    loader = make_loader(training_spec(), batch_size=13, backend="dali")
    (batch,) = loader
    clip = batch.frames[batch.video_ids.index("short")]
    indices = batch.frame_indices[batch.video_ids.index("short")]
    again = [t for t in range(1, 4) if indices[t] == indices[t - 1]]
    assert all(torch.equal(clip[t], clip[t - 1]) for t in again)


@pytest.mark.parametrize("store", ["raw-frames", "historical"])
def test_other_stores_of_jpeg_frames(tmp_path: Path, store: str) -> None:
    (tmp_path / "videos" / "one").mkdir(parents=True)
    for i in range(3):
        make_video(tmp_path / "videos" / "one" / f"v{i}.mp4", 20, seed=i)
    options = ConvertOptions((72,), stores=("frames-db", "raw-frames"))
    convert(plan_folders(tmp_path / "videos"), tmp_path / "root", options, num_workers=1)
    if store == "historical":
        dataset = ClipDataset.of_historical(tmp_path / "root" / "raw_frames")
    else:
        dataset = ClipDataset(tmp_path / "root", store=store)
    spec = training_spec(exact_resolution=True, short_side=(40, 60))
    found = []
    for backend in BOTH:
        with ClipLoader(dataset, spec, batch_size=3, num_workers=1, workers="threads", backend=backend) as loader:
            found.append([batch.copied() for batch in loader])
    for one, other in zip(*found, strict=True):
        assert said(one) == said(other)
        assert (one.frames.int() - other.frames).abs().max() <= 1


# Damage

DAMAGE = {
    "garbage": b"no jpeg",
    "empty": b"",
    "text": "text",
    "a jpeg without a picture": b"\xff\xd8\xff\xd9",
    "nothing but a beginning": b"\xff\xd8",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_damaged_frame_is_the_error_that_it_is_on_the_cpu(root_copy: Path, make_loader: MakeLoader, damage, spec):
    for table in ("Images", "Images_36"):
        change(database(root_copy), f"UPDATE {table} SET frames = ? WHERE frame >= 15", damage)
    errors = []
    for backend in BOTH:
        loader = make_loader(spec, at=root_copy, backend=backend)
        error = run_to_the_error(loader)
        errors.append((str(error), error.frame, loader.state_dict()))
        assert loader._engine.free.qsize() == 4  # depth + 2
    assert errors[0] == errors[1]
    assert f"undecodable: {NAME}" in errors[1][0]


def cut_short(blob: bytes) -> bytes:
    return blob[: len(blob) // 2]


def without_tables(blob: bytes) -> bytes:
    """Sound at first sight, from beginning to end: only the decoder knows better."""
    return blob.replace(b"\xff\xdb", b"\xff\xec")


def rewrite(path: Path, damaged: Callable[[bytes], bytes]) -> None:
    """All frames of a database, each through `damaged`."""
    with closing(sqlite3.connect(path)) as db, db:
        for table in ("Images", "Images_36"):
            for frame, blob in db.execute(f"SELECT frame, frames FROM {table}").fetchall():
                db.execute(f"UPDATE {table} SET frames = ? WHERE frame = ?", (damaged(blob), frame))


@pytest.mark.parametrize("damaged", [cut_short, without_tables])
def test_bad_clips_are_replaced_and_recorded_as_on_the_cpu_and_the_rest_stays(
    root_copy: Path, make_loader: MakeLoader, damaged
) -> None:
    loader = make_loader(batch_size=4, backend="dali", drop_last=False)
    whole = [batch.copied() for _ in range(2) for batch in loader]
    rewrite(database(root_copy), damaged)
    found = []
    for backend in BOTH:
        loader = make_loader(at=root_copy, batch_size=4, max_bad=0.5, backend=backend, drop_last=False)
        batches = [batch.copied() for _ in range(2) for batch in loader]
        found.append(([said(batch) for batch in batches], loader.bad_samples, loader.statistics.num_bad))
    assert found[0] == found[1]
    assert {sample.name for sample in found[1][1]} == {NAME} and found[1][2] >= 2
    assert recorded(root_copy) == [("pear tree", VIDEO, "undecodable")] * 2 * found[1][2]
    for before, after in zip(whole, batches, strict=True):
        for row, name in enumerate(before.video_ids):
            assert name == VIDEO or torch.equal(before.frames[row], after.frames[row])


def test_the_first_error_of_a_batch_is_the_one_told(root_copy: Path, make_loader: MakeLoader) -> None:
    """Of two bad clips, also where the later is found out at first sight and the earlier by decoding only."""
    (batch,) = make_loader(batch_size=13)
    first, *_, last = batch.video_ids
    rewrite(database(root_copy, first), without_tables)
    rewrite(database(root_copy, last), lambda blob: b"no jpeg")
    errors = [str(run_to_the_error(make_loader(at=root_copy, batch_size=13, backend=backend))) for backend in BOTH]
    assert errors[0] == errors[1] and f"/{first}:" in errors[1]


def test_a_missing_database_is_replaced_as_on_the_cpu(root_copy: Path, make_loader: MakeLoader) -> None:
    database(root_copy).unlink()
    cpu, dali = (make_loader(at=root_copy, batch_size=4, max_bad=0.9, backend=backend) for backend in BOTH)
    assert stream(dali, epochs=3) == stream(cpu, epochs=3)
    assert dali.bad_samples == cpu.bad_samples


def test_when_all_are_bad_it_is_an_error_and_no_endless_search(root_copy: Path, make_loader: MakeLoader) -> None:
    for path in root_copy.rglob("frames.db"):
        rewrite(path, without_tables)
    with pytest.raises(ClipError, match="undecodable"):
        next(iter(make_loader(at=root_copy, max_bad=0.9, backend="dali")))


def test_once_mended_the_loader_goes_on_with_the_batch_that_failed(root_copy: Path, make_loader: MakeLoader) -> None:
    whole = stream(make_loader(batch_size=3, drop_last=False))
    path = database(root_copy)
    path.rename(path.with_name("aside"))
    loader = make_loader(at=root_copy, batch_size=3, drop_last=False, backend="dali")
    run_to_the_error(loader)
    done = loader.state_dict()["position"] // 3
    path.with_name("aside").rename(path)
    assert stream(loader) == whole[done:]


def test_wrong_bits_inside_a_picture_do_not_end_the_run(root_copy: Path, make_loader: MakeLoader) -> None:
    """DALI makes of them what it can, without a word: this damage is for `clipmill ingest verify` to find."""
    rewrite(database(root_copy), lambda blob: blob[:700] + bytes(40) + blob[740:])
    loader = make_loader(at=root_copy, batch_size=4, max_bad=0.9, backend="dali", drop_last=False)
    assert sum(len(batch) for batch in loader) == 13


def test_frames_that_only_dali_refuses_are_decoded_on_the_cpu(make_loader: MakeLoader, monkeypatch) -> None:
    """Twice refused, as found and after a look at every frame: then it is DALI, and the batch is the CPU engine's."""
    expected = [batch.copied() for batch in make_loader(batch_size=4)]
    with make_loader(batch_size=4, backend="dali") as loader:
        with_dali = [batch.copied() for batch in loader]
    run, calls = Decoder._run, []

    def refused_at_first(self, pictures, cuts):
        calls.append(self._pipeline)
        if len(calls) <= 2:
            raise RuntimeError("out of sorts")
        return run(self, pictures, cuts)

    monkeypatch.setattr(Decoder, "_run", refused_at_first)
    loader = make_loader(batch_size=4, backend="dali")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [batch.copied() for batch in loader]
    assert [str(each.message) for each in caught] == [
        "DALI refused a batch of sound frames, which was decoded on the CPU: out of sorts"
    ]
    assert torch.equal(found[0].frames, expected[0].frames)
    assert all(torch.equal(one.frames, other.frames) for one, other in zip(found[1:], with_dali[1:], strict=True))
    assert len({id(pipeline) for pipeline in calls[:3]}) == 3  # built anew after each refusal
    assert not loader.bad_samples


@pytest.mark.filterwarnings("ignore:DALI refused")
def test_a_dali_that_refuses_everything_is_an_error(make_loader: MakeLoader, monkeypatch) -> None:
    def refuses(self, pictures, cuts):
        raise RuntimeError("no driver")

    monkeypatch.setattr(Decoder, "_run", refuses)
    with pytest.raises(DaliError, match="no driver"):
        for batch in make_loader(batch_size=2, backend="dali"):
            assert batch.position < 6


# What it cannot do


def test_stores_without_jpeg_frames_are_refused_with_the_backend_that_can(tmp_path: Path) -> None:
    (tmp_path / "videos" / "one").mkdir(parents=True)
    make_video(tmp_path / "videos" / "one" / "v.mp4", 20)
    plan = plan_folders(tmp_path / "videos")
    for codec in ("png", "webp"):
        options = ConvertOptions((72,), codec=codec, stores=("frames-db", "npy"))
        convert(plan, tmp_path / codec, options, num_workers=1)
        with (
            ClipLoader(
                ClipDataset(tmp_path / codec), training_spec(), batch_size=1, max_bad=0.5, backend="dali"
            ) as loader,
            pytest.raises(ClipmillError, match=r"holds no JPEG frames\. .* Load it with backend='cpu'"),
        ):
            next(iter(loader))
    for dataset in (ClipDataset(tmp_path / "png", store="npy"), ClipDataset.of_videos(tmp_path / "videos")):
        with pytest.raises(ClipmillError, match=rf"the store {dataset.store} of .* holds no JPEG frames"):
            ClipLoader(dataset, training_spec(), batch_size=1, backend="dali")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": recipe_by_name("srtg-code")}, r"the executor 'fast' does not go .* Take executor='gpu'"),
        (
            {"augment": recipe_by_name("srtg-code"), "executor": "imgaug"},
            r"the executor 'imgaug' does not go .* or backend='cpu'",
        ),
        (
            {"augment": Recipe((RandomResizedCrop(32, 32),)), "geometry": "recipe"},
            r"geometry 'recipe'.* Take geometry='loader', or backend",
        ),
    ],
)
def test_recipes_that_see_single_clips_are_refused(make_loader: MakeLoader, options: dict, message: str) -> None:
    with pytest.raises(ClipmillError, match=message):
        make_loader(training_spec(**options), backend="dali")


def test_an_unknown_backend_is_refused(make_loader: MakeLoader) -> None:
    with pytest.raises(ValueError, match="backend is 'abacus'; there are cpu, dali"):
        make_loader(backend="abacus")


def test_without_the_extra_the_error_names_it(make_loader: MakeLoader, monkeypatch) -> None:
    import nvidia

    monkeypatch.delattr(nvidia, "dali", raising=False)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(ClipmillError, match=r"pip install 'clipmill\[dali\]'.*backend='cpu'"):
        make_loader(backend="dali")


# The rest of a loader's promises


def test_a_recipe_is_carried_out_where_the_batch_is_normalised(make_loader: MakeLoader) -> None:
    spec = training_spec(augment=recipe_by_name("srtg-code"), executor="gpu", exact_resolution=True)
    cpu, dali = (make_loader(spec, backend=backend) for backend in BOTH)
    norm = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
    for one, other in zip(cpu, dali, strict=True):
        assert said(one) == said(other)
        made = other.normalized(*norm)
        assert (one.normalized(*norm) - made).abs().mean() < 1
        assert (made - other.frames.permute(0, 4, 1, 2, 3)).abs().mean() > 1


def test_memory_is_a_fixed_number_of_batches_and_a_batch_holds_until_the_next(make_loader: MakeLoader) -> None:
    loader = make_loader(batch_size=1, depth=1, backend="dali")
    places = set()
    for batch in loader:
        before = batch.frames.clone()
        places.add(batch.frames.data_ptr())
        threading.Event().wait(0.01)
        assert torch.equal(batch.frames, before)
    assert len(places) <= 3


def test_stages_count_every_clip_and_the_bytes_read(make_loader: MakeLoader) -> None:
    stages = []
    for backend in BOTH:
        loader = make_loader(batch_size=13, backend=backend)
        list(loader)
        stages.append(loader.stages())
        assert loader.report()
    cpu, dali = stages
    assert set(dali) == {"read", "decode", "assemble", "wait"}
    assert all(stage.count == 13 and stage.seconds > 0 for stage in dali.values())
    assert dali["read"].num_bytes == cpu["read"].num_bytes


def test_close_in_mid_epoch_leaves_no_thread_and_may_be_called_twice(make_loader: MakeLoader) -> None:
    loader = make_loader(batch_size=2, num_workers=3, backend="dali")
    batches = iter(loader)
    batch = next(batches)
    before = digest(batch)
    assert any("DALI" in name for name in dali_threads()) or not Path("/proc/self/task").exists()
    loader.close()
    loader.close()
    assert not dali_threads()
    assert list(batches) == []
    assert digest(batch) == before


def test_slots_come_back_after_every_break(make_loader: MakeLoader) -> None:
    loader = make_loader(batch_size=2, depth=1, backend="dali")
    for _ in range(10):
        for _ in loader:
            break
    loader._stop_stream()
    assert loader._engine.free.qsize() == 3


def test_an_iterator_that_outlives_its_loader_does_no_harm(make_loader: MakeLoader) -> None:
    loader = make_loader(batch_size=1, num_workers=1, depth=9, backend="dali")
    batches = iter(loader)
    next(batches)
    loader._engine.close()
    ended = threading.Thread(target=batches.close, daemon=True)
    ended.start()
    ended.join(20)
    assert not ended.is_alive()


def test_close_while_a_read_is_slow_ends_and_so_does_who_waits(make_loader: MakeLoader, monkeypatch) -> None:
    """Reads that are taken back are nobody's to wait for."""
    reading, go_on = threading.Event(), threading.Event()
    read = FrameReader.read

    def slow(*arguments):
        reading.set()
        go_on.wait(20)
        return read(*arguments)

    monkeypatch.setattr(FrameReader, "read", slow)
    loader = make_loader(batch_size=6, num_workers=1, backend="dali")
    failed: list[BaseException] = []

    def wait_for_a_batch() -> None:
        try:
            next(iter(loader))
        except BaseException as error:
            failed.append(error)

    waiting = threading.Thread(target=wait_for_a_batch, daemon=True)
    waiting.start()
    assert reading.wait(20)
    closing = threading.Thread(target=loader._engine.close, daemon=True)
    closing.start()
    while not engine_of(loader)._closed.is_set():
        threading.Event().wait(0.001)
    go_on.set()
    for thread in (closing, waiting):
        thread.join(20)
        assert not thread.is_alive()
    assert len(failed) == 1
    assert not dali_threads()


def test_a_config_says_which_backend(root: Path) -> None:
    from trainers.config import DataConfig

    assert DataConfig(root=root, batch_size=1).backend == "cpu"
    assert DataConfig(root=root, batch_size=1, backend="dali").backend == "dali"


# Odd pictures


def with_exif_orientation(blob: bytes) -> bytes:
    """Turned by a quarter, says a camera's note. Decoders of frames have no use for it."""
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    tiff = b"MM\x00\x2a\x00\x00\x00\x08\x00\x01" + entry + bytes(4)
    body = b"Exif\x00\x00" + tiff
    return blob[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + blob[2:]


def grey(blob: bytes) -> bytes:
    picture = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_GRAYSCALE)
    return cv2.imencode(".jpg", picture)[1].tobytes()


def smaller(blob: bytes) -> bytes:
    """Not of the size that the catalog says."""
    picture = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".jpg", cv2.resize(picture, None, fx=0.75, fy=0.75))[1].tobytes()


def progressive(blob: bytes) -> bytes:
    picture = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()


def with_something_behind(blob: bytes) -> bytes:
    return blob + b"something else"


@pytest.mark.parametrize("odd", [with_exif_orientation, grey, smaller, progressive, with_something_behind])
def test_odd_pictures_are_what_they_are_on_the_cpu(root_copy: Path, make_loader: MakeLoader, odd) -> None:
    rewrite(database(root_copy), odd)
    loaders = [make_loader(evaluation_spec(), at=root_copy, batch_size=6, backend=backend) for backend in BOTH]
    num_odd = 0
    for one, other in zip(*loaders, strict=True):
        assert said(one) == said(other)
        assert (one.frames.int() - other.frames).abs().max() <= 2
        num_odd += one.video_ids.count(VIDEO)
    assert num_odd == 6
    assert stored_frame(loaders[0].dataset, 0, 0).shape == (72, 96, 3)


# On a GPU

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


class TestOnAGpu:
    pytestmark = gpu

    @pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
    def test_the_stream_is_that_of_the_cpu_and_lies_on_the_device(self, make_loader: MakeLoader, spec) -> None:
        cpu, dali = (make_loader(spec, batch_size=3, backend=backend) for backend in BOTH)
        for one, other in zip(cpu, dali, strict=True):
            assert said(one) == said(other)
            assert other.frames.is_cuda
            difference = (one.frames.int() - other.frames.cpu()).abs().float()
            assert difference.mean() < 4

    def test_a_batch_is_read_before_its_memory_is_written_anew(self, make_loader: MakeLoader) -> None:
        norm = ((0.45,) * 3, (0.225,) * 3)
        slow = [
            batch.normalized(*norm, device="cuda").cpu() for batch in make_loader(batch_size=1, depth=0, backend="dali")
        ]
        fast = [batch.normalized(*norm, device="cuda") for batch in make_loader(batch_size=1, depth=0, backend="dali")]
        assert all(torch.equal(one, other.cpu()) for one, other in zip(slow, fast, strict=True))

    def test_a_damaged_frame_is_replaced(self, root_copy: Path, make_loader: MakeLoader) -> None:
        rewrite(database(root_copy), without_tables)
        cpu, dali = (make_loader(at=root_copy, batch_size=4, max_bad=0.9, backend=backend) for backend in BOTH)
        assert stream(dali) == stream(cpu)
        assert dali.bad_samples == cpu.bad_samples
