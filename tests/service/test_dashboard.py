"""The dashboard's files: they come from this host alone, and text of the server cannot become markup."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import DASHBOARD

FILES = sorted(path.name for path in DASHBOARD.iterdir() if path.is_file())
UPLOT = DASHBOARD / "vendor" / "uplot"


def test_the_page_and_its_files_are_served(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for link in re.findall(r'(?:src|href)="(/[^"]*)"', page.text):
        assert client.get(link).status_code == 200
    types = {name: client.get(f"/dashboard/{name}").headers["content-type"].split(";")[0] for name in FILES}
    assert types["app.js"] in ("text/javascript", "application/javascript")
    assert types["style.css"] == "text/css"


def test_an_unchanged_file_is_not_sent_again(client: TestClient) -> None:
    tag = client.get("/dashboard/app.js").headers["etag"]
    assert client.get("/dashboard/app.js", headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize("name", FILES)
def test_no_other_host_and_no_markup_from_text(name: str) -> None:
    text = Path(DASHBOARD / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//cdn|@import", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    assert not re.search(r"\son\w+=|style=", text) or not name.endswith(".html")


def test_every_import_of_a_module_is_there() -> None:
    for script in DASHBOARD.glob("*.js"):
        for target in re.findall(r'from "/dashboard/([^"]+)"', script.read_text(encoding="utf-8")):
            assert (DASHBOARD / target).is_file()


def test_the_chart_library_is_shipped_with_its_licence_and_asks_nobody(client: TestClient) -> None:
    assert "MIT" in (UPLOT / "LICENSE").read_text()
    script = (UPLOT / "uPlot.iife.min.js").read_text()
    assert re.findall(r"https?://[^ )]*", script) == ["https://github.com/leeoniya/uPlot"]  # In its licence comment.
    assert not re.search(
        r"fetch\(|XMLHttpRequest|importScripts|@import|url\(", script + (UPLOT / "uPlot.min.css").read_text()
    )
    assert client.get("/dashboard/vendor/uplot/uPlot.iife.min.js").status_code == 200


def test_a_first_paint_needs_little(client: TestClient) -> None:
    """Style and page are needed before something is seen; scripts wait (defer, module)."""
    page = client.get("/").text
    assert all("defer" in tag or "module" in tag for tag in re.findall(r"<script[^>]*>", page))
    assert sum(path.stat().st_size for path in DASHBOARD.rglob("*") if path.suffix in (".html", ".css")) < 30_000
    assert sum(path.stat().st_size for path in DASHBOARD.rglob("*") if path.is_file()) < 150_000


def test_what_the_scripts_look_for_is_in_the_page() -> None:
    page = (DASHBOARD / "index.html").read_text(encoding="utf-8")
    wanted = {
        name for script in DASHBOARD.glob("*.js") for name in re.findall(r'\$\("([^"]+)"\)', script.read_text("utf-8"))
    }
    assert len(wanted) > 20
    assert [name for name in sorted(wanted) if f'id="{name}"' not in page] == []


def test_the_files_are_part_of_the_package() -> None:
    shipped = tomllib.loads((DASHBOARD.parents[1] / "pyproject.toml").read_text())
    patterns = shipped["tool"]["setuptools"]["package-data"]["service"]
    here = {path for path in DASHBOARD.rglob("*") if path.is_file()}
    assert {path for pattern in patterns for path in DASHBOARD.parent.glob(pattern) if path.is_file()} >= here
