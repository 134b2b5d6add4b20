"""The studio's routes without a generator: access, refused requests, and the answers of an empty
root."""

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.web.app import build_app
from gaip3_pipeline.web.guard import MAX_BODY
from gaip3_pipeline.web.studio import UPLOAD

FACE = {"latents": {"seed": 1}, "values": [0.5] * 5}
ASKED = {"tab": "tab", "pane": "grid", "faces": [FACE]}
ZIP = "tab=t&n=1&seed=1&temperature=1&guidance=1"
ROUTES = [
    ("GET", "/api/studio", None),
    ("POST", "/api/studio/faces", ASKED),
    ("POST", "/api/studio/retouch", ASKED | {"fidelity": 0.5}),
    ("POST", "/api/studio/photograph?tab=t&pane=p", None),
    ("POST", "/api/studio/picture.png", ASKED),
    ("GET", "/api/studio/models?tab=t", None),
    ("GET", f"/api/studio/faces.zip?{ZIP}", None),
]


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    root = DataRoot(tmp_path / "얼굴 data")
    root.path.mkdir()
    root.settings_file.write_text('preset = "tiny"\n', encoding="utf-8")
    return root


@pytest.fixture
def page(root: DataRoot) -> TestClient:
    return TestClient(build_app(root), base_url="http://127.0.0.1:3100")


@pytest.mark.parametrize(
    ("method", "path", "body"), ROUTES, ids=[path.partition("?")[0] for _, path, _ in ROUTES]
)
def test_every_route_stands_behind_the_guard(
    root: DataRoot, page: TestClient, method: str, path: str, body: dict | None
) -> None:
    for headers in (
        {"host": "evil.example"},
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
    ):
        assert page.request(method, path, json=body, headers=headers).status_code == 403
    beyond = TestClient(build_app(root, token="secret"), base_url="http://192.0.2.7:3100")
    assert beyond.request(method, path, json=body).status_code == 403


def test_an_empty_root_names_the_command_to_run_and_loads_nothing(
    root: DataRoot, page: TestClient
) -> None:
    about = page.get("/api/studio").json()
    assert (about["ready"], about["running"], about["can_retouch"], about["can_encode"]) == (
        False,
        False,
        False,
        False,
    )
    assert about["command"] == f"gaip3 refresh --root '{root.path}'"
    assert [a["name"] for a in about["attributes"]] == list(ATTRIBUTES)


@pytest.mark.parametrize(
    "changes",
    [
        {"faces": []},
        {"faces": [FACE] * 17},
        {"faces": [FACE | {"values": [2.0] * 5}]},
        {"faces": [FACE | {"latents": {"path": "models"}}]},
        {"model": "../nvae"},
        {"tab": "a b"},
        {"pane": ""},
    ],
)
def test_malformed_requests_are_refused(page: TestClient, changes: dict) -> None:
    assert page.post("/api/studio/faces", json=ASKED | changes).status_code == 422


def test_only_photographs_may_be_large_and_only_up_to_a_limit(page: TestClient) -> None:
    for path, most in (
        ("/api/studio/faces", MAX_BODY),
        ("/api/studio/photograph?tab=t&pane=p", UPLOAD),
    ):
        answer = page.post(path, content=b"", headers={"content-length": str(most + 1)})
        assert answer.status_code == 403
        assert f"{most:,} bytes" in answer.text


@pytest.mark.parametrize(
    "query", [f"{ZIP}&values=1,2", f"{ZIP}&values=a,,,,", ZIP.replace("n=1", "n=100000")]
)
def test_a_zip_of_impossible_faces_is_refused(page: TestClient, query: str) -> None:
    assert page.get(f"/api/studio/faces.zip?{query}").status_code == 422


@pytest.mark.parametrize("box", ["0,0,0.01,1", "0,0,1", "0,0,2,1", "0.9,0,0.1,1"])
def test_an_impossible_part_of_a_photograph_is_refused(page: TestClient, box: str) -> None:
    query = "&".join(f"box={share}" for share in box.split(","))
    answer = page.post(f"/api/studio/photograph?tab=t&pane=p&{query}", content=b"x")
    assert answer.status_code == 422


@pytest.mark.parametrize("data", [b"", b"no picture", b"%PDF-1.7", b"\xef\xbb\xbf<html>"])
def test_a_file_of_another_kind_is_refused_before_a_model_is_loaded(
    root: DataRoot, data: bytes
) -> None:
    with TestClient(build_app(root), base_url="http://127.0.0.1:3100") as page:
        answer = page.post("/api/studio/photograph?tab=t&pane=p", content=data)
        assert answer.status_code == 415
        assert answer.json()["detail"].startswith("not a picture that can be read: choose a JPEG")


def test_a_generator_that_cannot_run_is_answered_by_the_variable(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    root.nvae.mkdir(parents=True)
    (root.nvae / "model.weights.h5").touch()
    with TestClient(build_app(root), base_url="http://127.0.0.1:3100") as page:
        answer = page.post("/api/studio/faces", json=ASKED)
        assert (answer.status_code, answer.json()["detail"][:20]) == (422, "KERAS_BACKEND=torch:")


def test_a_face_without_a_generator_is_answered_by_the_command_to_run(root: DataRoot) -> None:
    with TestClient(build_app(root), base_url="http://127.0.0.1:3100") as page:
        answer = page.post("/api/studio/faces", json=ASKED)
        assert answer.status_code == 422
        assert f"run gaip3 refresh --root '{root.path}'" in json.loads(answer.text)["detail"]
        assert page.get("/api/studio").json()["running"]
