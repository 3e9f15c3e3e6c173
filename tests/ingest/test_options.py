"""Options of a conversion and the settings lines that stand for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.catalog import VideoKey
from ingest.errors import ClipmillError
from ingest.options import STORES, ConvertOptions, parse_rate, parse_settings
from ingest.plan import Job


@pytest.mark.parametrize(
    "options",
    [
        ConvertOptions(),
        ConvertOptions((64, 256, 64), 75),
        ConvertOptions((128,), fps=4),
        ConvertOptions((96,), stores=("npy",), npy_fps=2.5),
        ConvertOptions((96, 48), stores=("npy", "frames-db"), fps=0.5),
        ConvertOptions((96, 48), codec="png", aspect="square"),
        ConvertOptions((96,), 40, codec="webp", stores=("raw-frames",)),
        ConvertOptions((96, 48), 40, stores=STORES, fps=2, aspect="square"),
    ],
)
@pytest.mark.parametrize("span_s", [None, (3.0, 12.5)])
def test_a_settings_line_gives_the_options_and_the_span_back(
    options: ConvertOptions, span_s: tuple[float, float] | None
) -> None:
    job = Job(VideoKey("a", "b"), Path("c.mp4"), span_s)
    settings = options.settings_of(job)
    parsed = parse_settings(settings, Job(job.key, job.source))
    assert parsed is not None
    assert (parsed[0].settings_of(parsed[1]), parsed[1]) == (settings, job)
    assert parse_settings(settings + " and more", job) is None


def test_lines_of_other_versions_are_not_understood() -> None:
    line = ConvertOptions().settings
    assert parse_settings(line, Job(VideoKey("", "a"), Path())) is not None
    assert parse_settings(line.replace(" v1 ", " v9 "), Job(VideoKey("", "a"), Path())) is None
    assert parse_settings(line.replace("jpeg", "gif"), Job(VideoKey("", "a"), Path())) is None


def test_what_decides_the_content_is_in_the_line_and_nothing_else() -> None:
    base = ConvertOptions((96, 48), stores=STORES)
    others = [
        ConvertOptions((96,), stores=STORES),
        ConvertOptions((96, 48), 80, stores=STORES),
        ConvertOptions((96, 48), stores=STORES, fps=3),
        ConvertOptions((96, 48), stores=STORES, npy_fps=3),
        ConvertOptions((96, 48), stores=STORES, codec="webp"),
        ConvertOptions((96, 48), stores=STORES, aspect="square"),
    ]
    assert len({base.settings, *(other.settings for other in others)}) == 1 + len(others)
    assert ConvertOptions((48, 96), stores=STORES[::-1]).settings == base.settings
    assert ConvertOptions((96,), 10, codec="png").settings == ConvertOptions((96,), 90, codec="png").settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"codec": "gif"},
        {"aspect": "round"},
        {"stores": ("frames-db", "tape")},
        {"stores": ()},
        {"fps": -1.0},
        {"npy_fps": 0.0},
    ],
    ids=str,
)
def test_what_there_is_not_is_refused_with_what_there_is(wrong: dict) -> None:
    with pytest.raises(ClipmillError, match=r"there are|above zero"):
        ConvertOptions(**wrong)


def test_a_rate_is_native_or_a_number() -> None:
    assert parse_rate("native") is None
    assert parse_rate("4") == 4.0
    with pytest.raises(ClipmillError, match="'fast'"):
        parse_rate("fast")
