"""The tables of docs/methods/sbp.md, from the results: python -m tests.benchmarks.sbp_page"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from tests.benchmarks._common import RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "methods" / "sbp.md"
MOTION = RESULTS / "sbp_motion.jsonl"

PUBLISHED_MIB = {"plain": 2572, "plain checkpointing": 378, "v1/2": 959, "v1/4": 887, "v1/8": 851, "v2/2": 1390}
"""Of the authors' code, the same clip, measured once."""


def _figures(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text())["figures"] if path.exists() else None


def memory() -> str:
    found = _figures("sbp_memory")
    if found is None:
        return ""
    lines = ["Bytes that autograd holds after the forward, Swin-T, one clip of 32 x 224 x 224, float32:", "",
             "| setting | MiB | of plain | published code, MiB |", "|---|---|---|---|"]  # fmt: skip
    for name, size in found["bytes"].items():
        if name != "published formula":
            published = PUBLISHED_MIB.get(name, "")
            lines.append(f"| {name} | {size / 2**20:.0f} | {found['of_plain'][name]:.3f} | {published} |")
    lines += [
        "",
        "Swin-B, one clip of so many frames, GiB:",
        "",
        "| frames | plain | v1/4 | v1/4 checkpointing |",
        "|---|---|---|---|",
    ]
    for frames, sizes in found["swin_base_bytes_by_frames"].items():
        lines.append("| " + " | ".join([frames, *(f"{size / 2**30:.1f}" for size in sizes.values())]) + " |")
    share = found["end_to_end_share"]
    lines += ["", f"End to end, ResNet-50 on 160 frames at rate 0.2: {share:.2f} of what it holds with all frames."]
    return "\n".join(lines)


def time() -> str:
    found = _figures("sbp_time")
    if found is None:
        return ""
    frames, side = found["clip"][2], found["clip"][3]
    lines = [f"One step (forward and backward), one clip of {frames} x {side} x {side}, {found['threads']} threads, medians:", "",
             "| setting | s | of plain |", "|---|---|---|"]  # fmt: skip
    for name, seconds in found["wall"]["median_s"].items():
        lines.append(f"| {name} | {seconds:.2f} | {found['wall']['of_plain'][name]:.2f} |")
    return "\n".join(lines)


def motion() -> str:
    if not MOTION.exists():
        return ""
    runs = [json.loads(line) for line in MOTION.read_text().splitlines() if line.strip()]
    names = sorted({run["setting"] for run in runs}, key=lambda name: int(name.partition(" ")[2] or 1))
    lines = ["| setting | top-1 of each seed | mean | held per clip, MiB | of plain |", "|---|---|---|---|---|"]
    plain = next((run["saved_bytes"] for run in runs if run["setting"] == "plain"), None)
    for name in names:
        own = sorted((run for run in runs if run["setting"] == name), key=lambda run: run["seed"])
        scores = [100 * run["top1"] for run in own]
        size = own[0]["saved_bytes"]
        share = f"{size / plain:.2f}" if plain else ""
        listed = ", ".join(f"{score:.1f}" for score in scores)
        lines.append(f"| {name} | {listed} | {mean(scores):.1f} | {size / 2**20:.1f} | {share} |")
    return "\n".join(lines)


TABLES: Mapping[str, Callable[[], str]] = {"memory": memory, "time": time, "motion": motion}
"""Name between the markers of the page -> the table."""


def filled(page: str, name: str) -> str:
    """The page with one table as the results have it. Raises: ValueError if it has no such markers."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page has no markers for {name}")
    text = TABLES[name]()
    return pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}" if text else found[1] + found[2], page)


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in TABLES:
        page = filled(page, name)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
