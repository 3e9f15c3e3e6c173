"""Features of videos and arrays, and live scores from them."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipmill import main
from ingest.demo import make_untrimmed
from ingest.errors import ClipmillError
from ingest.ffmpeg import encode_h264
from tests.trainers.lstr.networks import SMALL, make, windows_for
from trainers.lstr.extract import FrameSpec, extract, features_of, frames_of
from trainers.lstr.inference import score_video
from trainers.lstr.live import ScoreServer, live_scores, rows_of
from trainers.lstr.split import SplitLstr
from trainers.lstr.stream import LSTRStream

PLAIN = FrameSpec(short_side=32, crop=0, mean=(0.0,) * 3, std=(1.0,) * 3)


class MeanColour(nn.Module):
    """Frames (B, 3, H, W) or clips (B, 3, T, H, W) to their mean colour, (B, 3); counts the frames of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, frames: Tensor) -> Tensor:
        self.batches.append(len(frames))
        return frames.flatten(2).mean(2)


@pytest.fixture(scope="module")
def counting_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds at 24 fps; frame i is grey, 2 x i bright."""
    path = tmp_path_factory.mktemp("videos") / "counting.mp4"
    frames = (np.full((48, 64, 3), 2 * i, np.uint8) for i in range(96))
    encode_h264(frames, path, size=(64, 48), fps=24)
    return path


def test_a_row_is_the_fourth_of_six_frames_at_24_fps(counting_video: Path) -> None:
    rows = features_of(frames_of(counting_video, PLAIN), MeanColour(), PLAIN, batch_size=5, device=torch.device("cpu"))
    assert rows.shape == (16, 3)
    np.testing.assert_allclose(rows.mean(1), 2 * (6 * np.arange(16) + 3), atol=2.0)


def test_a_clip_is_the_six_frames_of_its_row(counting_video: Path) -> None:
    spec = FrameSpec(32, 0, 6, PLAIN.mean, PLAIN.std)
    clips = list(frames_of(counting_video, spec))
    assert len(clips) == 16 and clips[0].shape[0] == 6
    for row, clip in enumerate(clips):
        np.testing.assert_allclose(clip.mean((1, 2, 3)), 2 * (6 * row + np.arange(6)), atol=2.0)


def test_rows_of_an_array_are_its_frames_and_clips_look_back(tmp_path: Path) -> None:
    frames = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None, None], (10, 40, 60, 3))
    np.save(tmp_path / "a.npy", np.ascontiguousarray(frames))
    images = list(frames_of(tmp_path / "a.npy", FrameSpec(20, 16)))
    assert images[3].shape == (16, 16, 3) and (images[3] == 3).all()
    clips = list(frames_of(tmp_path / "a.npy", FrameSpec(20, 16, 4)))
    assert [clip[:, 0, 0, 0].tolist() for clip in clips[:5:2]] == [[0, 0, 0, 0], [0, 0, 1, 2], [1, 2, 3, 4]]


def test_extraction_goes_on_where_it_was_and_names_what_cannot_be_read(counting_video: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in ("a", "b"):
        (source / f"{name}.mp4").write_bytes(counting_video.read_bytes())
    (source / "broken.mp4").write_bytes(b"no video")
    backbone = MeanColour()
    first = extract(source, out, backbone, PLAIN, {"backbone": "mean"}, batch_size=7, tell=lambda _: None)
    assert (first.made, list(first.failed)) == (["a", "b"], ["broken"])
    assert backbone.batches == [7, 7, 2] * 2
    (out / "b.npy").unlink()
    second = extract(source, out, backbone, PLAIN, {"backbone": "mean"}, tell=lambda _: None)
    assert (second.made, second.there) == (["b"], ["a"])
    assert (np.load(out / "a.npy") == np.load(out / "b.npy")).all()
    with pytest.raises(ClipmillError, match="another kind"):
        extract(source, out, backbone, PLAIN, {"backbone": "other"}, tell=lambda _: None)


def test_live_scores_of_a_file_are_those_of_its_features(counting_video: Path) -> None:
    from dataclasses import replace

    model = make(replace(SMALL, modality="visual", visual_size=3))
    windows = windows_for(model.spec, long_rate=1)
    backbone, names = MeanColour(), [str(i) for i in range(5)]
    features = features_of(frames_of(counting_video, PLAIN), backbone, PLAIN, batch_size=8, device=torch.device("cpu"))
    expected = score_video(SplitLstr(model), windows, features, None).scores
    rows = rows_of(str(counting_video), PLAIN)
    live = list(live_scores(rows, backbone, PLAIN, LSTRStream(model, windows), names))
    assert [each.row for each in live] == list(range(16)) and live[5].time_s == 1.25
    ours = np.array([[each.probabilities[name] for name in names] for each in live])
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert "1.25 s" in live[5].line(2)


def test_a_source_that_only_ffmpeg_knows_gives_rows() -> None:
    spec = FrameSpec(32, 24)
    rows = rows_of("testsrc=duration=2:size=64x48:rate=24", spec, "lavfi")
    assert [frame.shape for frame in rows] == [(24, 24, 3)] * 8
    clips = rows_of("testsrc=duration=1:size=64x48:rate=24", FrameSpec(32, 24, 6), "lavfi")
    assert [clip.shape for clip in clips] == [(6, 24, 24, 3)] * 4
    with pytest.raises(ClipmillError, match="cannot read"):
        next(rows_of("/dev/there-is-no-camera", spec, "v4l2"))


def test_scores_are_served_as_they_come() -> None:
    from trainers.lstr.live import RowScores

    server = ScoreServer("127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.port}"
    assert urllib.request.urlopen(f"{base}/latest", timeout=5).read() == b"null"
    server.publish(RowScores(0, 0.0, {"Run": 0.5}))
    assert json.loads(urllib.request.urlopen(f"{base}/latest", timeout=5).read())["scores"] == {"Run": 0.5}
    with urllib.request.urlopen(f"{base}/stream", timeout=5) as events:
        seen = [events.readline() for _ in range(3)]
        server.publish(RowScores(1, 0.25, {"Run": 0.75}))
        seen += [events.readline() for _ in range(2)]
    server.close()
    assert seen[0] == b"id: 0\n" and b'"Run": 0.75' in seen[4]


def test_from_videos_to_live_scores_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """extract -> train -> test -> stream -> evaluate -> export, one backbone all the way."""
    made = make_untrimmed(tmp_path / "videos", num_videos=4, size=(64, 48), seconds=(8.0, 9.0), seed=0)
    backbone = ["--backbone", "resnet18", "--short-side", "32", "--crop", "32", "--device", "cpu"]
    root = tmp_path / "root"
    run_ok(["lstr", "extract", str(made.videos[0].parent), str(root / "rgb"), *backbone])
    sessions = sorted(path.stem for path in (root / "rgb").glob("*.npy"))
    assert len(sessions) == 4
    (root / "target_perframe").mkdir()
    for session in sessions:
        rows = len(np.load(root / "rgb" / f"{session}.npy"))
        np.save(root / "target_perframe" / f"{session}.npy", np.arange(rows) // 4 % 3)
    entry = {"data_root": ".", "class_names": ["Background", "A", "B"], "fps": 4,
             "train_session_set": sessions, "test_session_set": sessions}  # fmt: skip
    (root / "data_info.json").write_text(json.dumps({"Demo": entry}))
    options = [
        f"data.root={root}", "data.name=Demo", "data.visual=rgb", "data.visual_size=512", "data.batch_size=4",
        "model.modality=visual", "model.long_seconds=4", "model.work_seconds=2", "model.width=16", "model.num_heads=2",
        "model.hidden=16", "train.epochs=1", "train.accelerator=cpu", "train.tensorboard=false", "train.report=false",
    ]  # fmt: skip
    run = tmp_path / "run"
    run_ok(["train", "lstr", "--config", "thumos", "--out", str(run), *options])
    best = str(run / "checkpoints" / "best.pt")
    run_ok(["test", "lstr", "--checkpoint", best, "--mode", "stream"])
    capsys.readouterr()
    run_ok(["lstr", "stream", str(made.videos[0]), "--checkpoint", best, *backbone, "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with np.load(run / "test.npz") as results:
        saved = results[f"scores/{made.videos[0].stem}"]
    ours = np.array([list(line["scores"].values()) for line in lines])
    np.testing.assert_allclose(ours[: len(saved)], saved, atol=1e-4)
    run_ok(["lstr", "evaluate", str(run / "test.npz"), "--smooth", "--json"])
    assert json.loads(capsys.readouterr().out)["metric"] == "AP"
    run_ok(["lstr", "export", best, str(tmp_path / "epoch-1.pth")])
    content = torch.load(tmp_path / "epoch-1.pth", weights_only=True)
    assert sorted(content) == ["epoch", "model_state_dict", "optimizer_state_dict"]
    run_ok(["train", "lstr", "--config", "thumos", "--out", str(tmp_path / "again"), *options,
            "--init", str(tmp_path / "epoch-1.pth")])  # fmt: skip
    assert "loaded" in capsys.readouterr().out


def run_ok(arguments: list[str]) -> None:
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code in (0, None), arguments
