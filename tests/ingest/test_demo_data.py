"""The demo sets: files as promised, the same bytes from the same seed, motion that only several frames tell."""

from __future__ import annotations

import csv
import re
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ingest import demo
from ingest import ffmpeg as ffmpeg_module
from ingest._motion import MOTIONS, Scene, Span, draw, poses, random_scene, size_of
from ingest.demo import DemoSet, make_trimmed, make_untrimmed
from ingest.errors import ClipmillError
from ingest.ffmpeg import FfmpegError, encode_h264, ffmpeg_exe

SMALL = {"num_videos": 24, "size": (64, 48), "seconds": (0.6, 1.2)}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> DemoSet:
    return make_trimmed(tmp_path_factory.mktemp("trimmed"), **SMALL)


@pytest.fixture(scope="module")
def untrimmed(tmp_path_factory: pytest.TempPathFactory) -> DemoSet:
    return make_untrimmed(tmp_path_factory.mktemp("untrimmed"), num_videos=6, size=(64, 48))


@pytest.fixture
def fresh_ffmpeg() -> Iterator[None]:
    """Forget which ffmpeg was found, before and after."""
    ffmpeg_exe.cache_clear()
    yield
    ffmpeg_exe.cache_clear()


@pytest.fixture
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos of a few bytes, for tests of everything around them."""

    def stub(frames: Iterable[np.ndarray], path: Path, **options: object) -> None:
        path.write_bytes(b"video")

    monkeypatch.setattr(demo, "encode_h264", stub)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def decoded(path: Path) -> list[np.ndarray]:
    """All frames, gray, and on the way: codec, pixel format, rate 25, one frame every 40 ms from 0."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert len(container.streams) == 1
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 25
        frames, times = [], []
        for frame in container.decode(stream):
            frames.append(frame.to_ndarray(format="gray"))
            times.append(frame.time)
        assert float(stream.duration * stream.time_base) == pytest.approx(len(frames) / 25)
    assert np.allclose(times, np.arange(len(times)) / 25, atol=1e-3)
    return frames


# -- trimmed: what is on disk -----------------------------------------------------------------------------------------


def test_trimmed_videos_decode_as_labels_csv_says(trimmed: DemoSet) -> None:
    rows = rows_of(trimmed.annotations)
    assert len(rows) == 24
    assert {trimmed.root / "videos" / r["label"] / f"{r['youtube_id']}.mp4" for r in rows} == set(trimmed.videos)
    for row in rows:
        frames = decoded(trimmed.root / "videos" / row["label"] / f"{row['youtube_id']}.mp4")
        assert {f.shape for f in frames} == {(48, 64)}
        assert row["time_start"] == "0"
        assert len(frames) == round(float(row["time_end"]) * 25)
        assert 15 <= len(frames) <= 30


def test_durations_vary(trimmed: DemoSet) -> None:
    assert len({r["time_end"] for r in rows_of(trimmed.annotations)}) > 5


@pytest.mark.usefixtures("no_encoder")
def test_labels_csv_has_kinetics_columns_unique_ids_and_stratified_splits(tmp_path: Path) -> None:
    made = make_trimmed(tmp_path, num_videos=320, size=(32, 32))
    assert made.annotations.read_text().startswith("label,youtube_id,time_start,time_end,split\n")
    rows = rows_of(made.annotations)
    ids = [r["youtube_id"] for r in rows]
    assert len(set(ids)) == 320
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{11}", i) for i in ids)
    assert made.classes == tuple(sorted(MOTIONS))
    assert Counter((r["label"], r["split"]) for r in rows) == {
        (label, split): n for label in MOTIONS for split, n in (("train", 30), ("val", 4), ("test", 6))
    }


def test_a_class_of_three_is_in_every_split(trimmed: DemoSet) -> None:
    splits = Counter((r["label"], r["split"]) for r in rows_of(trimmed.annotations))
    assert splits == {(label, split): 1 for label in MOTIONS for split in ("train", "val", "test")}


def test_same_seed_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    few = {**SMALL, "num_videos": 8}
    for name, seed, num_workers in (("a", 1, 1), ("b", 1, 5), ("c", 2, 2)):
        make_trimmed(tmp_path / name, **few, seed=seed, num_workers=num_workers)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    a, c = contents(tmp_path / "a"), contents(tmp_path / "c")
    assert set(a) & set(c) == {"labels.csv", "demo.json"}
    assert not set(a.values()) & set(c.values())


# -- trimmed: again, interrupted, refused -----------------------------------------------------------------------------


def test_a_second_call_makes_nothing(trimmed: DemoSet) -> None:
    times = {p: p.stat().st_mtime_ns for p in trimmed.root.rglob("*")}
    calls: list[tuple[int, int]] = []
    again = make_trimmed(trimmed.root, **SMALL, progress=lambda done, total: calls.append((done, total)))
    assert trimmed.num_made == 24
    assert again == DemoSet(trimmed.root, trimmed.videos, trimmed.annotations, trimmed.classes, num_made=0)
    assert calls == [(24, 24)]
    assert {p: p.stat().st_mtime_ns for p in trimmed.root.rglob("*")} == times


def test_progress_counts_every_video(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    make_trimmed(tmp_path, **{**SMALL, "num_videos": 3}, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("manifest_lost", [False, True])
def test_a_set_with_holes_is_completed(tmp_path: Path, manifest_lost: bool) -> None:
    few = {**SMALL, "num_videos": 4}
    made = make_trimmed(tmp_path, **few)
    whole = contents(tmp_path)
    victim, emptied = made.videos[1:3]
    (tmp_path / ".tmp-left").mkdir()
    victim.rename(tmp_path / ".tmp-left" / victim.name)  # as a killed run leaves it
    emptied.write_bytes(b"")  # as a crash of the machine may leave it
    made.annotations.unlink()
    if manifest_lost:
        (tmp_path / "demo.json").unlink()
    again = make_trimmed(tmp_path, **few)
    assert again.num_made == (4 if manifest_lost else 2)
    assert contents(tmp_path) == whole


def test_a_killed_run_is_completed_by_the_next(tmp_path: Path, trimmed: DemoSet) -> None:
    code = (
        "import sys; from pathlib import Path; from ingest.demo import make_trimmed; "
        f"make_trimmed(Path(sys.argv[1]), **{SMALL!r}, num_workers=2)"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("videos/*/[!.]*.mp4")):
        assert run.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (tmp_path / "labels.csv").exists()
    made = make_trimmed(tmp_path, **SMALL)
    assert 0 < made.num_made < 24
    assert contents(tmp_path) == contents(trimmed.root)


@pytest.mark.usefixtures("no_encoder")
def test_another_set_in_the_folder_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    make_trimmed(tmp_path, num_videos=3, size=(32, 32), seed=1)
    before = contents(tmp_path)
    with pytest.raises(ClipmillError, match=r"holds another demo set.*seed=1, asked for is seed=2"):
        make_trimmed(tmp_path, num_videos=3, size=(32, 32), seed=2)
    with pytest.raises(ClipmillError, match=r"kind=trimmed"):
        make_untrimmed(tmp_path, num_videos=3, size=(32, 32), seed=1)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_videos": 0}, "at least one video"),
        ({"seed": -1}, "seed is 0 or more"),
        ({"size": (161, 120)}, "even"),
        ({"size": (64, 16)}, "at least 32"),
        ({"fps": 0}, "fps is 1 or more"),
        ({"seconds": (4.0, 2.0)}, "shortest, longest"),
        ({"seconds": (0.0, 2.0)}, "at least one frame"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_trimmed(tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


# -- ffmpeg -----------------------------------------------------------------------------------------------------------


def fake_ffmpeg(folder: Path, script: str) -> Path:
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.usefixtures("fresh_ffmpeg")
def test_the_systems_ffmpeg_comes_first_if_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    own = fake_ffmpeg(tmp_path, "echo libx264")
    assert ffmpeg_exe() == str(own)
    ffmpeg_exe.cache_clear()
    fake_ffmpeg(tmp_path, "echo mpeg4")
    assert ffmpeg_exe() == ffmpeg_module.imageio_ffmpeg.get_ffmpeg_exe()
    ffmpeg_exe.cache_clear()
    fake_ffmpeg(tmp_path, "exit 1")
    assert ffmpeg_exe() == ffmpeg_module.imageio_ffmpeg.get_ffmpeg_exe()


@pytest.mark.usefixtures("fresh_ffmpeg")
def test_without_any_ffmpeg_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise RuntimeError("no binary for this platform")

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(ffmpeg_module.imageio_ffmpeg, "get_ffmpeg_exe", none)
    with pytest.raises(FfmpegError, match=r"videos cannot be written.*pip install"):
        ffmpeg_exe()


@pytest.mark.parametrize("reads_first", [False, True])
def test_a_failing_encode_shows_ffmpegs_last_words_and_leaves_no_annotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads_first: bool
) -> None:
    script = ("cat > /dev/null\n" if reads_first else "") + "echo 'Unknown encoder libx264' >&2\nexit 3"
    exe = str(fake_ffmpeg(tmp_path, script))
    monkeypatch.setattr(ffmpeg_module, "ffmpeg_exe", lambda: exe)
    with pytest.raises(FfmpegError, match=r"code 3 while writing .*mp4: Unknown encoder libx264"):
        make_trimmed(tmp_path / "set", **SMALL)
    assert not (tmp_path / "set/labels.csv").exists()


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        encode_h264([], tmp_path / "x.mp4", size=(64, 48), fps=25)


def test_a_frame_of_another_shape_is_refused(tmp_path: Path) -> None:
    frames = [np.zeros((48, 64, 3), np.uint8), np.zeros((64, 48, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"uint8 \(48, 64, 3\) here, got uint8 \(64, 48, 3\)"):
        encode_h264(frames, tmp_path / "x.mp4", size=(64, 48), fps=25)


# -- the drawing: no single frame tells the class ---------------------------------------------------------------------


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_pose_in_any_frame_is_uniform_for_every_motion(motion: str) -> None:
    num = 2000
    all_poses = np.array([poses([Span(motion, 40)], 25, np.random.default_rng((5, k))) for k in range(num)])
    expected = np.arange(1, num + 1) / num
    for frame in (0, 13, 39):
        distance = np.abs(np.sort(all_poses[:, frame], axis=0) - expected[:, None]).max(axis=0)
        # Kolmogorov-Smirnov: exceeded by chance in one of 8000 comparisons, and the seed is fixed.
        assert (distance < 2.2 / np.sqrt(num)).all(), (frame, distance)


def drawn(motion: str, k: int, frames: Iterable[int]) -> tuple[Scene, list[np.ndarray], list[np.ndarray]]:
    """Scene, poses and frames of video k, 64 x 48."""
    rng = np.random.default_rng((11, k))
    scene = random_scene((64, 48), rng)
    path = poses([Span(motion, 60)], 25, rng)
    chosen = [p for p in (path[f] for f in frames) if p is not None]
    return scene, chosen, [draw(scene, p) for p in chosen]


def features(frame: np.ndarray) -> np.ndarray:
    """Gray 16 x 12, and how far each pixel is from the median, which shows where the object is."""
    gray = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (16, 12), interpolation=cv2.INTER_AREA).astype(float)
    return np.concatenate([gray.ravel(), np.abs(gray - np.median(gray)).ravel()])


def single_frame_accuracy(frames: list[np.ndarray], labels: list[int], video: list[int]) -> float:
    """The better of two classifiers, each tested on videos that it has not seen."""
    x = np.array([features(f) for f in frames])
    models = (LogisticRegression(C=0.01, max_iter=300), KNeighborsClassifier(15))
    return max(
        cross_val_score(make_pipeline(StandardScaler(), m), x, labels, groups=video, cv=GroupKFold(5)).mean()
        for m in models
    )


def test_single_frames_do_not_tell_the_class() -> None:
    frames, leaky, labels, video = [], [], [], []
    for k in range(160):
        scene, chosen, images = drawn(MOTIONS[k % 8], k, range(0, 60, 12))
        frames += images
        # The control: the same videos, but the class decides where the object is.
        leaky += [draw(scene, np.array([(k % 8 + 0.5) / 8, 0.5, p[2], p[3]])) for p in chosen]
        labels += [k % 8] * len(images)
        video += [k] * len(images)
    # 160 videos at chance: 0.125 +- 0.026, so that 0.25 is more than four deviations away.
    assert single_frame_accuracy(frames, labels, video) < 0.25
    assert single_frame_accuracy(leaky, labels, video) > 0.5


# -- the drawing: two frames do ---------------------------------------------------------------------------------------


def object_mask(scene: Scene, frame: np.ndarray) -> np.ndarray:
    """Where the object is in the first period (48 x 48), bool."""
    return np.abs(frame.astype(int) - scene.background.astype(int)).max(axis=2)[:48, :48] > 6


def centre(mask: np.ndarray) -> np.ndarray:
    """Mean position (x, y) on the torus, in periods."""
    turn = np.exp(2j * np.pi * (np.arange(48) + 0.5) / 48)
    sums = np.array([(mask * turn[None, :]).sum(), (mask * turn[:, None]).sum()])
    return np.angle(sums) / (2 * np.pi) % 1


def signed(change: np.ndarray | float) -> np.ndarray:
    """A change on the circle, -0.5 to 0.5."""
    return (np.asarray(change) + 0.5) % 1 - 0.5


def seen_turn(one: np.ndarray, two: np.ndarray) -> float:
    """Turn of the object about its centre of mass, in turns, clockwise on screen, from the pixels alone."""
    polar = []
    for gray, mask in ((cv2.cvtColor(f, cv2.COLOR_RGB2GRAY)[:48, :48], m) for f, m in (one, two)):
        to_middle = np.round((0.5 - centre(mask)) * 48).astype(int)
        middle = np.roll(np.where(mask, gray, 0), (to_middle[1], to_middle[0]), axis=(0, 1))
        # Rows of the polar picture are angles from the x axis towards the y axis, which points down: clockwise.
        polar.append(cv2.warpPolar(middle, (16, 180), (23.5, 23.5), 16, cv2.WARP_POLAR_LINEAR).astype(float))
    first, second = (np.fft.fft(p - p.mean(), axis=0) for p in polar)
    correlation = np.fft.ifft((second * first.conj()).sum(axis=1)).real
    return float(signed(int(correlation.argmax()) / 180))


def told_by_two_frames(k: int, motion: str) -> str:
    """Names the motion by the largest change between two frames, each change in units of a typical one."""
    scene, _, (one, two) = drawn(motion, k, (20, 24))
    masks = object_mask(scene, one), object_mask(scene, two)
    x, y = signed(centre(masks[1]) - centre(masks[0])) / 0.12
    turn = seen_turn((one, masks[0]), (two, masks[1])) / 0.08
    growth = np.log(masks[1].sum() / masks[0].sum()) / 0.28
    changes = {"right": x, "left": -x, "down": y, "up": -y, "clockwise": turn, "anticlockwise": -turn}
    return max({**changes, "grow": growth, "shrink": -growth}.items(), key=lambda item: item[1])[0]


def test_two_frames_tell_the_class_by_what_is_seen_on_the_screen() -> None:
    told = [told_by_two_frames(k, MOTIONS[k % 8]) == MOTIONS[k % 8] for k in range(160)]
    assert np.mean(told) > 0.85


@pytest.mark.parametrize(
    ("turns", "dx", "dy"), [(0.0, 0, -1), (0.25, 1, 0), (0.5, 0, 1), (0.75, -1, 0)], ids=["0", "90", "180", "270"]
)
def test_turns_are_clockwise_on_the_screen(turns: float, dx: int, dy: int) -> None:
    sprite = np.zeros((45, 45, 4), np.float32)
    sprite[..., 3] = 1
    sprite[4:15, 17:28, :3] = 255  # a white mark at the top
    frame = draw(Scene(np.zeros((48, 48, 3), np.uint8), sprite), np.array([0.5, 0.5, turns, 1.0]))
    ys, xs = np.nonzero(frame[..., 0] > 128)
    reach = 13 * 0.95 * 48 / 41  # 13 of the 41 pixels of the object, which is now 95 % of 48 pixels
    assert xs.mean() + 0.5 == pytest.approx(24 + dx * reach, abs=0.5)
    assert ys.mean() + 0.5 == pytest.approx(24 + dy * reach, abs=0.5)


@pytest.mark.parametrize(("axis", "direction"), [(0, "x, to the right"), (1, "y, downwards")])
def test_position_is_that_of_the_screen(axis: int, direction: str) -> None:
    scene = random_scene((64, 48), np.random.default_rng(0))
    at = np.array([0.4, 0.4, 0.1, 0.3])
    there = at + 0.1 * np.eye(4)[axis]
    moved = signed(centre(object_mask(scene, draw(scene, there))) - centre(object_mask(scene, draw(scene, at))))
    assert moved[axis] == pytest.approx(0.1, abs=0.02), direction
    assert moved[1 - axis] == pytest.approx(0, abs=0.02)


def test_size_is_that_of_the_screen() -> None:
    scene = random_scene((64, 48), np.random.default_rng(0))
    small, large = np.array([0.5, 0.5, 0.1, 0.2]), np.array([0.5, 0.5, 0.1, 0.9])
    areas = [object_mask(scene, draw(scene, p)).sum() for p in (small, large)]
    assert areas[1] / areas[0] == pytest.approx((size_of(large) / size_of(small)) ** 2, rel=0.1)


@pytest.mark.parametrize(
    ("motion", "axis", "least", "most"),
    [
        ("left", 0, -0.65, -0.30),
        ("right", 0, 0.30, 0.65),
        ("up", 1, -0.65, -0.30),
        ("down", 1, 0.30, 0.65),
        ("clockwise", 2, 90 / 360, 216 / 360),
        ("anticlockwise", 2, -216 / 360, -90 / 360),
        ("grow", 3, np.log(1.6) / np.log(0.95 / 0.45), np.log(2.4) / np.log(0.95 / 0.45)),
        ("shrink", 3, -np.log(2.4) / np.log(0.95 / 0.45), -np.log(1.6) / np.log(0.95 / 0.45)),
    ],
)
def test_a_motion_covers_the_promised_way_in_16_frames(motion: str, axis: int, least: float, most: float) -> None:
    for seed in range(50):
        path = np.array(poses([Span(motion, 17)], 25, np.random.default_rng(seed)))
        way = signed(np.diff(path, axis=0)).sum(axis=0)
        assert least - 1e-9 <= way[axis] <= most + 1e-9
        assert np.allclose(np.delete(way, axis), 0)


def test_the_object_continues_on_the_other_side_and_repeats_every_short_side() -> None:
    scene = random_scene((128, 48), np.random.default_rng(3))
    plain = Scene(np.zeros_like(scene.background), scene.sprite)
    across_the_corner = draw(plain, np.array([0.0, 0.0, 0.3, 0.5]))
    middle = draw(plain, np.array([0.5, 0.5, 0.3, 0.5]))
    assert np.array_equal(np.roll(middle[:48, :48], (24, 24), axis=(0, 1)), across_the_corner[:48, :48])
    assert np.array_equal(middle[:, 48:96], middle[:, :48])
    assert np.array_equal(middle[:, 96:], middle[:, :32])


def test_an_absent_object_leaves_the_background_and_comes_back_elsewhere() -> None:
    scene = random_scene((64, 48), np.random.default_rng(0))
    path = poses(
        [Span("static", 2), Span("left", 3), Span("absent", 2), Span("static", 1)], 25, np.random.default_rng(0)
    )
    assert [p is None for p in path] == [False] * 5 + [True] * 2 + [False]
    assert np.array_equal(path[0], path[2]), "an action begins where the object rested"
    assert not np.isclose(path[7], path[4]).any()
    assert np.array_equal(draw(scene, None), scene.background)


# -- untrimmed --------------------------------------------------------------------------------------------------------


def segments_of(root: Path) -> dict[str, list[tuple[float, float, str]]]:
    """video -> (start s, end s, class) in order, from lines that must have THUMOS14's form."""
    found: dict[str, list[tuple[float, float, str]]] = {}
    for path in sorted((root / "annotation").iterdir()):
        label, subset = re.fullmatch(r"([A-Z][a-z]+)_(val|test)\.txt", path.name).groups()
        long = {"val": "validation", "test": "test"}[subset]
        for line in path.read_text().splitlines():
            match = re.fullmatch(rf"(video_{long}_\d{{7}})  (\d+\.\d) (\d+\.\d)", line)
            assert match, line
            found.setdefault(match[1], []).append((float(match[2]), float(match[3]), label))
    return {video: sorted(segments) for video, segments in found.items()}


def test_untrimmed_videos_hold_actions_and_rest(untrimmed: DemoSet) -> None:
    segments = segments_of(untrimmed.root)
    assert sorted(segments) == sorted(v.stem for v in untrimmed.videos)
    assert [v.name for v in untrimmed.videos[:3]] == [
        "video_validation_0000001.mp4",
        "video_validation_0000002.mp4",
        "video_test_0000001.mp4",
    ]
    for video in untrimmed.videos:
        frames = decoded(video)
        duration_s = len(frames) / 25
        assert 20 <= duration_s <= 60.04
        inside = segments[video.stem]
        assert len(inside) >= 2
        assert all(2 <= end - start <= 6 for start, end, _ in inside)
        edges = [0.0, *(t for start, end, _ in inside for t in (start, end)), duration_s]
        assert all(after - before >= 0.99 for before, after in zip(edges[::2], edges[1::2], strict=True))

        # Pixels move from the first to the last frame of an action, and rest elsewhere (the object may come or go).
        change = np.array([cv2.absdiff(a, b).max() for a, b in pairwise(frames)])
        for start, end, label in inside:
            first, stop = int(np.ceil(round(start * 25, 3))), int(np.ceil(round(end * 25, 3)))
            assert np.median(change[first : stop - 1]) > 10, (video.stem, label)
        for rest_from, rest_to in zip(edges[::2], edges[1::2], strict=True):
            assert np.median(change[int(rest_from * 25) + 2 : int(rest_to * 25) - 2]) < 10, (video.stem, rest_from)


def test_untrimmed_class_list_and_files(untrimmed: DemoSet) -> None:
    lines = (untrimmed.root / "detclasslist.txt").read_text().splitlines()
    assert lines == [f"{k} {name}" for k, name in enumerate(untrimmed.classes, start=1)]
    assert untrimmed.classes == tuple(sorted(m.capitalize() for m in MOTIONS))
    assert {p.name for p in untrimmed.annotations.iterdir()} == {
        f"{name}_{subset}.txt" for name in untrimmed.classes for subset in ("val", "test")
    }


@pytest.mark.usefixtures("no_encoder")
def test_untrimmed_classes_are_balanced_in_both_subsets(tmp_path: Path) -> None:
    made = make_untrimmed(tmp_path, size=(32, 32))
    assert len(made.videos) == 24
    for subset in ("val", "test"):
        sizes = [len(p.read_text().splitlines()) for p in tmp_path.glob(f"annotation/*_{subset}.txt")]
        assert min(sizes) >= 3
        assert max(sizes) - min(sizes) <= 1


def test_untrimmed_is_completed_and_repeats(tmp_path: Path, untrimmed: DemoSet) -> None:
    few = {"num_videos": 2, "size": (64, 48), "seconds": (5.0, 8.0)}
    made = make_untrimmed(tmp_path / "a", **few, num_workers=1)
    whole = contents(tmp_path / "a")
    made.videos[0].unlink()
    (made.annotations / "Left_val.txt").unlink()
    assert make_untrimmed(tmp_path / "a", **few).num_made == 1
    assert make_untrimmed(tmp_path / "a", **few).num_made == 0
    make_untrimmed(tmp_path / "b", **few, num_workers=3)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == whole


def test_an_untrimmed_video_needs_room_for_an_action(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 5 s"):
        make_untrimmed(tmp_path, seconds=(2.0, 4.0))
