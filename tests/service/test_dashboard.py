"""The dashboard's files: they come from this host alone, and text of the server cannot become markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import DASHBOARD

FILES = sorted(path.name for path in DASHBOARD.iterdir())


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


def test_a_first_paint_needs_little(client: TestClient) -> None:
    assert sum((DASHBOARD / name).stat().st_size for name in FILES) < 100_000
