"""The dashboard in a real browser, over a real service, a real ingest and a real training: do the numbers move?"""

from __future__ import annotations

import base64
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loaders.telemetry import TelemetryWriter
from tests.browser.chromium import Browser, find_chromium
from tests.conftest import Clipmill, SmallDataset
from tests.service.conftest import fill_catalog, runs, sample, templates  # noqa: F401 - fixtures
from tests.service.test_serve import PROJECT, serving

PROGRAM = find_chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: apt-get install chromium"),
]
TAB = ("Tab", 9)
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844, "phone": True}}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM, tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture
def page(browser: Browser) -> Browser:
    browser.open("about:blank")  # Leaves the service of the test before.
    browser.requests.clear()
    browser.errors.clear()
    browser.window(1280, 900)
    return browser


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, small_dataset: SmallDataset, clipmill: Clipmill) -> Path:
    """A root of 12 good videos, and one whose file ends early."""
    folder = tmp_path_factory.mktemp("browser")
    source = folder / "videos"
    subprocess.run(["cp", "-r", small_dataset.videos, source], check=True)
    whole = next((source / "plum").iterdir())
    (source / "plum" / "cut <b>short.mp4").write_bytes(whole.read_bytes()[:2000])
    labels = folder / "labels.csv"
    labels.write_text(small_dataset.labels.read_text() + "plum,cut <b>short,0,1,train\n")
    done = clipmill("ingest", "convert", source, folder / "small", "--labels", labels, "--short-side", "72")
    assert done.returncode == 1, done.stderr  # 1: problems found.
    return folder / "small"


@pytest.fixture
def url(ingested: Path, runs: Path) -> Iterator[str]:  # noqa: F811
    with serving("--root", ingested, "--runs", runs) as (_, url):
        yield url


def choose(page: Browser, selector: str, value: str, event: str = "change") -> None:
    page.js(
        f"(node => {{ node.value = {json.dumps(value)}; node.dispatchEvent(new Event('{event}', {{bubbles: true}})); }})"
        f"(document.querySelector({json.dumps(selector)}))"
    )


def number(page: Browser, name: str) -> int:
    """A fact of the first dataset's card; -1 while it is not there."""
    found = page.js(
        "[...document.querySelectorAll('#datasets .facts div')].find(d => d.querySelector('dt').innerText === "
        f"{json.dumps(name)})?.querySelector('dd').innerText ?? '-1'"
    )
    return int(str(found).replace(",", ""))


def test_a_real_ingest_moves_the_numbers(page: Browser, small_dataset: SmallDataset, tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    with serving("--root", tmp_path / "fresh", "--runs", tmp_path / "runs") as (_, url):
        page.open(url)
        assert "holds no catalog.db" in page.wait("document.querySelector('#datasets .error')?.innerText")
        command = [sys.executable, "-m", "clipmill", "ingest", "convert", small_dataset.videos, tmp_path / "fresh"]
        ingest = subprocess.Popen(
            [*map(str, command), "--workers", "1", "--short-side", "72"], cwd=PROJECT, stdout=subprocess.DEVNULL
        )
        try:
            page.wait("document.querySelector('#datasets .bar')")
            assert ingest.wait(timeout=120) == 0
        finally:
            ingest.kill()
        page.wait("document.querySelector('#datasets .key')?.innerText.includes('12 ok')")
        assert number(page, "videos") == 12
        assert number(page, "frames") == small_dataset.total_frames
        assert "Last ingest finished: 12 converted" in page.text("#datasets")


@pytest.mark.slow
def test_a_real_training_moves_the_charts_and_ends(page: Browser, ingested: Path, tmp_path: Path) -> None:
    with serving("--root", ingested, "--runs", tmp_path / "runs") as (_, url):
        page.open(url)
        page.wait("!document.querySelector('#no-runs').hidden")
        overrides = [f"data.root={ingested}", "data.batch_size=2", "train.epochs=200", "train.log_every=1"]
        command = [
            sys.executable,
            "-m",
            "clipmill",
            "train",
            "srtg",
            "--config",
            "demo",
            "--out",
            tmp_path / "runs" / "real",
        ]
        training = subprocess.Popen(
            [*map(str, command), *overrides], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            page.wait("document.querySelector('#run-title').innerText === 'real'", 120)
            page.wait("document.querySelectorAll('#charts canvas').length >= 5", 120)
            cell = "document.querySelector('#runs td:nth-child(4)')"  # Without a step as long as none is reported.
            step = f"Number({cell}?.innerText.split('/')[1]?.replace(',', '') ?? 0)"
            first = page.wait(step)
            page.wait(f"{step} > {first} + 3", 120)
            loss = "document.querySelector('#charts figure:nth-child(3) strong')?.innerText"
            before = page.wait(loss)
            page.wait(f"{loss} !== {json.dumps(before)}", 120)
            assert "the limit" in page.wait("document.querySelector('#run-verdict').innerText")
            assert "decode" in page.text("#stages") and "backward" in page.text("#stages")
            training.send_signal(signal.SIGTERM)
            page.wait("document.querySelector('#runs .state').innerText === 'stopped'", 120)
            page.wait("document.querySelector('#run-about').innerText.includes('stopped')")
        finally:
            training.kill()
            output, _ = training.communicate()
        assert page.errors == [], output[-2000:]


def test_a_report_is_seen_without_asking_again(page: Browser, url: str, runs: Path) -> None:  # noqa: F811
    writer = TelemetryWriter(runs / "watched", {"method": "lstr"})
    writer.report(sample(10, loss=4.0))
    page.open(f"{url}#watched")
    page.wait("document.querySelector('#run-title').innerText === 'watched'")
    asked = sum("/speed" in request for request in page.requests)
    writer.report(sample(20, loss=3.0))
    page.wait("document.querySelector('#run-about').innerText.includes('step 20')")
    page.wait("document.querySelector('#charts figure:nth-child(3) strong').innerText === '3'")
    assert sum("/speed" in request for request in page.requests) == asked
    assert sum("/stream" in request for request in page.requests) == 1
    writer.close("finished")
    page.wait("document.querySelector('#run-about').innerText.includes('finished')")


def test_a_dead_run_is_called_dead(page: Browser, url: str) -> None:
    page.open(f"{url}#lost")
    page.wait("document.querySelector('#run-verdict').innerText.startsWith('No sign of life')")
    row = page.js("[...document.querySelectorAll('#runs tr')].find(r => r.innerText.includes('lost')).innerText")
    assert "dead, silent for 60 min" in row


def test_failures_are_listed_and_searched_and_text_stays_text(page: Browser, url: str) -> None:
    page.open(url)
    page.wait("document.querySelectorAll('#videos-table tbody tr').length === 1")
    assert "cut <b>short" in page.text("#videos-table") and "failed" in page.text("#videos-table")
    assert page.js("document.querySelectorAll('#videos-table b').length") == 0
    choose(page, "#videos-state", "all")
    page.wait("document.querySelectorAll('#videos-table tbody tr').length === 13")
    choose(page, "#videos-class", "pear tree")
    page.wait("document.querySelectorAll('#videos-table tbody tr').length === 4")
    choose(page, "#videos-text", "vid07", "input")
    page.wait("document.querySelectorAll('#videos-table tbody tr').length === 1")
    choose(page, "#videos-text", "no such thing", "input")
    page.wait("document.querySelector('#videos-count').innerText === 'No video passes these filters.'")


def test_the_contact_sheet_shows_pictures(page: Browser, url: str) -> None:
    page.open(url)
    page.wait("document.querySelector('#videos-dataset').value")
    assert not any("/frames/" in request for request in page.requests)  # Asked for only when it is opened.
    page.js("document.querySelector('#sheet-box summary').click()")
    page.wait("document.querySelectorAll('#sheet li').length === 12")
    page.js("document.querySelector('#sheet').scrollIntoView()")
    page.wait(
        "[...document.querySelectorAll('#sheet img')].filter(i => i.complete && i.naturalWidth === 96).length >= 12"
    )
    assert page.js("[...document.querySelectorAll('#sheet img')].every(image => image.alt)")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_asks_no_other_host(page: Browser, url: str, size: str, dark: bool, tmp_path: Path) -> None:
    page.window(**SIZES[size], dark=dark)
    page.open(f"{url}#live")
    page.wait("document.querySelectorAll('#charts canvas').length >= 5")
    assert page.js("document.documentElement.scrollWidth") <= SIZES[size]["width"]
    page.screenshot(tmp_path / f"{size}-{'dark' if dark else 'light'}.png")
    background = page.js("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(18, 20, 23)") is dark
    hosts = {request.split("/")[2] for request in page.requests if request.startswith("http")}
    assert hosts == {url.split("/")[2]}
    assert page.errors == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_background(page: Browser, url: str, dark: bool) -> None:
    """WCAG 2 AA: 4.5 for text. Pairs of the style sheet's colours that meet on the page."""
    page.window(1280, 900, dark=dark)
    page.open(url)
    for text, behind in (("text", "page"), ("text", "card"), ("muted", "page"), ("muted", "card"), ("accent", "card"),
                         ("failed", "card"), ("failed", "page")):  # fmt: skip
        colours = [
            page.js(f"getComputedStyle(document.documentElement).getPropertyValue('--{n}').trim()")
            for n in (text, behind)
        ]
        assert contrast(*colours) >= 4.5, (text, behind)


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, #rgb or #rrggbb. Source: WCAG 2.2, relative luminance."""

    def luminance(colour: str) -> float:
        digits = colour.lstrip("#")
        digits = "".join(c * 2 for c in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_keyboard_reaches_everything(page: Browser, url: str) -> None:
    page.open(f"{url}#live")
    page.wait("document.querySelectorAll('#charts canvas').length >= 5")
    wanted = page.js(
        "[...document.querySelectorAll('a, button, select, input, summary, [tabindex=\"0\"]')]"
        ".filter(node => !node.disabled && node.checkVisibility()).length"
    )
    page.js("document.activeElement?.blur(); window.reached = new Set()")
    for _ in range(wanted + 5):
        page.press(*TAB)
        page.js("reached.add(document.activeElement); getComputedStyle(document.activeElement).outlineStyle")
    assert page.js("[...reached].filter(node => node !== document.body).length") == wanted
    name = "[...document.querySelectorAll('#runs button')].find(b => b.innerText === 'done')"
    page.js(f"{name}.focus()")
    page.press("Enter", 13, "\r")
    page.wait("document.querySelector('#run-title').innerText === 'done'")


def test_arrow_keys_read_a_chart(page: Browser, url: str) -> None:
    page.open(f"{url}#live")
    page.wait("document.querySelectorAll('#charts canvas').length >= 5")
    page.js("document.querySelector('#charts .plot').focus()")
    assert "at" not in page.text("#charts figcaption .muted").split()
    page.press("ArrowLeft", 37)
    page.wait("document.querySelector('#charts figcaption .muted').innerText.includes(', at ')")
    label = page.js("document.querySelector('#charts .plot').getAttribute('aria-label')")
    assert label.startswith("Speed, clips/s: read (r) 400") and "Arrow keys" in label


def test_a_screen_reader_gets_names_for_everything(page: Browser, url: str) -> None:
    page.open(f"{url}#live")
    page.wait("document.querySelectorAll('#charts canvas').length >= 5")
    tree = page.tree()
    roles = {node["role"] for node in tree}
    assert {"heading", "table", "button", "combobox", "searchbox", "status", "image", "main", "banner"} <= roles
    nameless = [
        n for n in tree if n["role"] in ("button", "combobox", "searchbox", "image", "link", "table") and not n["name"]
    ]
    assert nameless == []
    headings = [int(level) for level in page.js("[...document.querySelectorAll('h1, h2, h3')].map(h => h.tagName[1])")]
    assert headings[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(headings))
    assert page.js("document.documentElement.lang") == "en"


def test_a_service_that_goes_and_comes_back(page: Browser, ingested: Path, runs: Path) -> None:  # noqa: F811
    with serving("--root", ingested, "--runs", runs) as (process, url):
        page.open(f"{url}#live")
        page.wait("document.querySelector('#connection').innerText === 'Live'")
        port = url.rstrip("/").rpartition(":")[2]
        process.terminate()
        process.wait(timeout=20)
    page.wait("document.querySelector('#connection').innerText.startsWith('Connection lost')")
    command = [sys.executable, "-m", "clipmill", "serve", "--root", ingested, "--runs", runs, "--port", port]
    with subprocess.Popen([*map(str, command)], cwd=PROJECT, stdout=subprocess.DEVNULL) as again:
        try:
            page.wait("document.querySelector('#connection').innerText === 'Live'")
        finally:
            again.kill()


def test_a_broken_dataset_and_a_broken_run_leave_the_rest(page: Browser, tmp_path: Path, runs: Path) -> None:  # noqa: F811
    fill_catalog(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "catalog.db").write_bytes(b"not a database " * 500)
    (runs / "broken").mkdir()
    (runs / "broken" / "telemetry.db").write_bytes(b"x" * 5000)
    with serving("--root", tmp_path / "bad", "--root", tmp_path / "good", "--runs", runs) as (_, url):
        page.open(f"{url}#broken")
        page.wait("document.querySelector('#run-error').innerText.includes('cannot be read')")
        assert "cannot be read" in page.text("#datasets .error") and "4 ok" in page.text("#datasets")
        assert "unreadable" in page.text("#runs") and "running" in page.text("#runs")


def test_with_a_token_the_page_works_as_a_browser_sends_it(page: Browser, tmp_path: Path, runs: Path) -> None:  # noqa: F811
    fill_catalog(tmp_path / "good")
    token = "0123456789abcdef0123"
    (tmp_path / "token").write_text(token)
    with serving("--root", tmp_path / "good", "--runs", runs, "--token-file", tmp_path / "token") as (_, url):
        page.open(f"{url}#live", {"Authorization": "Basic " + base64.b64encode(f"me:{token}".encode()).decode()})
        page.wait("document.querySelectorAll('#charts canvas').length >= 5")
        assert page.errors == []
