"""Who may ask: token, Host header, security headers; and what errors look like."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from ingest.errors import ClipmillError
from service.app import create_app
from service.problems import without_paths, without_paths_deep
from service.settings import Settings, is_loopback, named_roots, read_token

TOKEN = "0123456789abcdef0123"
EVERYWHERE = (
    "/",
    "/dashboard/app.js",
    "/readyz",
    "/metrics",
    "/api/datasets",
    "/api/loaders",
    "/openapi.json",
    "/nowhere",
)


@pytest.fixture
def guarded(root: Path, runs: Path) -> TestClient:
    settings = Settings({"motion": root}, runs, host="0.0.0.0", token=TOKEN)
    return TestClient(create_app(settings), base_url="http://gpu-box:8000")


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


@pytest.mark.parametrize("path", EVERYWHERE)
def test_without_the_token_only_healthz_answers(guarded: TestClient, path: str) -> None:
    answer = guarded.get(path)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert TOKEN not in answer.text
    assert guarded.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"Digest {TOKEN}", "Bearer \xe9\xe9",
     "Basic ?", basic("wrong"), basic(""), "Basic " + base64.b64encode(TOKEN.encode()).decode()],
)  # fmt: skip
def test_a_wrong_token(guarded: TestClient, authorization: str) -> None:
    headers = {b"Authorization": authorization.encode("latin-1")}
    assert guarded.get("/api/datasets", headers=headers).status_code == 401


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(TOKEN)])
def test_the_right_token(guarded: TestClient, authorization: str) -> None:
    for path in EVERYWHERE[:-1]:
        assert guarded.get(path, headers={"Authorization": authorization}).status_code == 200
    assert guarded.get("/api/datasets/motion", headers={"Authorization": authorization}).json()["num_videos"] == 7


def test_a_token_on_loopback_is_asked_for_too(root: Path, runs: Path) -> None:
    client = TestClient(create_app(Settings({"motion": root}, runs, token=TOKEN)), base_url="http://127.0.0.1")
    assert client.get("/api/datasets").status_code == 401


def test_without_a_token_a_foreign_host_name_gets_nothing(client: TestClient) -> None:
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
        assert client.get("/api/datasets", headers={"Host": host}).status_code == 421
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "127.0.0.2"):
        assert client.get("/api/datasets", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/api/datasets", "/api/datasets/nope", "/nowhere", "/metrics", "/dashboard/app.js"]
)
def test_security_headers_are_on_every_answer(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] in ("no-store", "no-cache")


def test_the_guarded_refusal_has_the_headers_too(guarded: TestClient) -> None:
    assert guarded.get("/api/datasets").headers["x-content-type-options"] == "nosniff"


def test_unknown_addresses_and_methods_are_problems(client: TestClient) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("POST", "/api/datasets", 403),
        ("DELETE", "/api/loaders/live", 403),
    ):
        answer = client.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status


@pytest.mark.parametrize(
    "path", ["/dashboard/../app.py", "/dashboard/%2e%2e/app.py", "/dashboard/..%2fsettings.py", "/dashboard/"]
)
def test_the_dashboard_serves_its_own_files_only(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_bug_is_a_500_without_a_trace(root: Path, runs: Path) -> None:
    app = create_app(Settings({"motion": root}, runs))

    def broken() -> None:
        raise RuntimeError("secret inside")

    app.add_api_route("/broken", broken)
    answer = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False).get("/broken")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text and "Traceback" not in answer.text


def test_readyz_fails_only_when_every_root_is_gone(root: Path, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    client = TestClient(
        create_app(Settings({"motion": root, "empty": tmp_path / "empty"}, runs)), base_url="http://localhost"
    )
    assert client.get("/readyz").status_code == 200
    for path in (root, tmp_path / "empty"):
        path.rename(path.with_name(path.name + "-unmounted"))
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_openapi_names_problems_and_examples(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    responses = schema["paths"]["/api/datasets/{name}"]["get"]["responses"]
    for status in ("404", "422", "503"):
        assert list(responses[status]["content"]) == ["application/problem+json"]
    assert schema["components"]["schemas"]["SpeedSample"]["properties"]["read"]["examples"]


# Settings


def test_off_loopback_without_a_token_is_refused(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "10.0.0.1", "gpu-box", ""):
        with pytest.raises(ClipmillError, match="token"):
            Settings({}, tmp_path, host=host)
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert is_loopback(host)
        Settings({}, tmp_path, host=host)


def test_roots_are_named_and_clashes_told(tmp_path: Path) -> None:
    for folder in ("a/ucf", "b/ucf", "b/hmdb"):
        (tmp_path / folder).mkdir(parents=True)
    assert named_roots([tmp_path / "a/ucf", tmp_path / "b/hmdb/"]) == {
        "ucf": tmp_path / "a/ucf",
        "hmdb": tmp_path / "b/hmdb",
    }
    assert list(named_roots([tmp_path / "a/ucf", tmp_path / "a/../a/ucf"])) == ["ucf"]
    with pytest.raises(ClipmillError, match="the name 'ucf'"):
        named_roots([tmp_path / "a/ucf", tmp_path / "b/ucf"])
    with pytest.raises(ClipmillError, match="does not exist"):
        named_roots([tmp_path / "none"])


def test_token_files(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(ClipmillError, match="cannot be read"):
        read_token(file)
    for short in ("", "\n", "hunter2\n"):
        file.write_text(short)
        with pytest.raises(ClipmillError, match="openssl"):
            read_token(file)
    file.write_text(f" {TOKEN} \nsecond line")
    assert read_token(file) == TOKEN


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot open /data/set/x.mp4: no such file", "cannot open x.mp4: no such file"),
        ("'/data/set/' is full", "'set/' is full"),
        ("/mnt/a/motion/jpg/v is bad", "root/jpg/v is bad"),
        ("r/f/b at 3 / 4, 25/1 fps", "r/f/b at 3 / 4, 25/1 fps"),
        ("see ./logs/x and logs/y", "see ./logs/x and logs/y"),
    ],
)
def test_host_paths_are_cut(text: str, shown: str) -> None:
    assert without_paths(text, {"root": Path("/mnt/a/motion")}) == shown


def test_host_paths_in_a_config_are_cut() -> None:
    config = {"root": "/data/my videos/motion/", "sizes": [1, 2.5, "/x/y"], "note": "from /a/b", "rate": float("inf")}
    assert without_paths_deep(config) == {"root": "motion", "sizes": [1, 2.5, "y"], "note": "from b", "rate": "inf"}
