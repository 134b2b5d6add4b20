"""The HTTP interface of the label page: its answers, its refusals, and that no acknowledged label
is lost."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import cv2
import httpx
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from gaip3_pipeline.features.part_measures import PARTS
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.tables.contracts import read_labels
from gaip3_pipeline.tables.label_store import LabelStore
from gaip3_pipeline.training_data import save_labelled_features
from gaip3_pipeline.web.app import build_app
from gaip3_pipeline.web.planning import Planner
from gaip3_pipeline_tests.web.processes import free_port, start, wait_for

SERVE = "import sys\nfrom gaip3_pipeline.cli import main\nmain(['label', '--root', *sys.argv[1:]])"
FEMALE, MALE = IMAGE_SETS[1:]


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    root = DataRoot(tmp_path / "얼굴 data")
    picture = np.full((64, 64, 3), 128, np.uint8)
    for image_set, letter in ((FEMALE, "f"), (MALE, "m")):
        root.original(image_set).mkdir(parents=True)
        for i in range(60):
            cv2.imwrite(str(root.original(image_set) / f"{letter}_{i:03d}.jpg"), picture + i)
    return root


@contextmanager
def serving(root: DataRoot, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The page of ``root``: its link, and its process."""
    log = root.path.parent / f"label{time.monotonic_ns()}.log"
    process = start(SERVE, log, str(root.path), *options)
    try:
        [link] = re.findall(r"Label page: (\S+)", wait_for("Ctrl-C stops it.", log, process))
        yield link, process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def page(root: DataRoot) -> Iterator[httpx.Client]:
    with (
        serving(root, "--port", str(free_port())) as (link, _),
        httpx.Client(base_url=link) as client,
    ):
        yield client


def label(stem: str, value: float | None, gender: str = "female", attribute: str = "mouth") -> dict:
    return {"attribute": attribute, "gender": gender, "stem": stem, "value": value}


def test_labels_are_in_the_csv_when_they_are_acknowledged_and_can_be_undone(
    root: DataRoot, page: httpx.Client
) -> None:
    sent = {
        "labels": [label("f_003", 0.25), label("m_001", 1.0, "male")],
        "who": "김",
        "session": "tab",
    }
    changes = page.post("/api/labels", json=sent).raise_for_status().json()["changes"]
    assert [(c["who"], c["before"], c["after"]) for c in changes] == [
        ("김", None, 0.25),
        ("김", None, 1.0),
    ]
    table = read_labels(root.hand_labels("mouth")).table
    assert list(zip(table.gender, table.img_id, table.stem, table.value, strict=True)) == [
        ("female", "3", "f_003", 0.25),
        ("male", "1", "m_001", 1.0),
    ]
    undone = page.post("/api/undo", json={"who": "김", "session": "tab"}).json()["change"]
    assert (undone["stem"], undone["after"]) == ("m_001", None)
    columns = page.get("/api/labels/mouth").json()["columns"]
    assert [
        (s, v) for s, v in zip(columns["stem"], columns["value"], strict=True) if v is not None
    ] == [("f_003", 0.25)]
    assert len(columns["stem"]) == 120


def test_the_review_is_shown_until_a_label_is_changed_or_confirmed(
    root: DataRoot, page: httpx.Client
) -> None:
    page.post(
        "/api/labels", json={"labels": [label(f"f_{i:03d}", 1.0) for i in range(3)], "who": "kim"}
    )
    root.label_review("mouth").parent.mkdir()
    rows = [
        (
            "female",
            f"f_{i:03d}",
            1.0 if i < 3 else None,
            0.1,
            0.05,
            0.9 - i / 10 if i < 3 else None,
            None if i < 3 else i,
        )
        for i in range(5)
    ]
    columns = ["gender", "stem", "value", "predicted", "uncertainty", "suspicion", "next"]
    pd.DataFrame(rows, columns=columns).to_csv(root.label_review("mouth"), index=False)

    def shown(column: str) -> list:
        return page.get("/api/labels/mouth").json()["columns"][column][:5]

    assert shown("suspicion") == [0.9, 0.8, 0.7, None, None]
    # the suspicions add up to 2.4: two labels look wrong
    assert page.get("/api/labels/mouth").json()["cut_off"] == 0.8
    assert shown("next") == [None, None, None, 3, 4]
    page.post(
        "/api/labels",
        json={
            "labels": [label("f_000", 0.0), label("f_001", 1.0), label("f_003", 0.5)],
            "who": "kim",
        },
    )
    assert shown("suspicion") == [None, None, 0.7, None, None]
    assert shown("next") == [None, None, None, None, 4]


def test_the_example_of_a_level_is_a_labelled_picture_or_a_painted_one(
    root: DataRoot, page: httpx.Client
) -> None:
    painted = page.get("/picture/example/mouth/4").raise_for_status().content
    page.post("/api/labels", json={"labels": [label("f_005", 1.0)], "who": "kim"})
    assert (
        page.get("/picture/example/mouth/4").content
        == page.get("/picture/large/female/f_005").content
        != painted
    )
    assert page.get("/picture/example/eyes/4?view=region").status_code == 200


def test_users_choose_the_example_of_a_level_until_its_label_changes(
    root: DataRoot, page: httpx.Client
) -> None:
    def example() -> bytes:
        return page.get("/picture/example/mouth/4").content

    def picture(stem: str) -> bytes:
        return page.get(f"/picture/large/female/{stem}").content

    labels = [label("f_005", 1.0), label("f_009", 1.0), label("f_011", 0.3)]
    page.post("/api/labels", json={"labels": labels, "who": "kim"})
    chosen = {"attribute": "mouth", "gender": "female", "stem": "f_009", "chosen": True}
    assert page.post("/api/examples", json=chosen).status_code == 200
    assert example() == picture("f_009") != picture("f_005")
    assert page.get("/api/labels/mouth").json()["examples"] == {"1": "female/f_009"}
    assert json.loads(root.label_examples.read_text()) == {"mouth": {"1": ["female", "f_009"]}}
    page.post("/api/labels", json={"labels": [label("f_009", 0.0)], "who": "kim"})
    assert example() == picture("f_005")
    assert page.get("/api/labels/mouth").json()["examples"] == {}
    page.post("/api/labels", json={"labels": [label("f_009", 1.0)], "who": "kim"})
    page.post("/api/examples", json=chosen | {"stem": "f_005", "chosen": False})
    assert example() == picture("f_009")  # another picture's choice is not taken back
    page.post("/api/examples", json=chosen | {"chosen": False})
    assert example() == picture("f_005")
    between = page.post("/api/examples", json=chosen | {"stem": "f_011"})
    assert between.status_code == 422
    assert "none of the levels" in between.json()["detail"]
    root.label_examples.write_text('["by hand"]')
    damaged = page.post("/api/examples", json=chosen)
    assert damaged.status_code == 422
    assert f"{root.label_examples} is not" in damaged.json()["detail"]
    assert root.label_examples.read_text() == '["by hand"]'


def test_similar_pictures_have_near_features_of_the_attributes_part(
    root: DataRoot, page: httpx.Client
) -> None:
    near = "/api/similar/mouth/female/f_001"
    assert "a refresh measures its features" in page.get(near).json()["detail"]
    keys = [f"d2_female/f_{i:03d}" for i in range(4)]
    groups = np.arange(len(PARTS) + 1)  # one feature of each part
    features = np.zeros((2, 8, len(PARTS)), np.float16)
    features[:, :, PARTS.index("mouth")] = [5, 0, 2, 1, 0, 0, 0, 0]
    features[:, :, PARTS.index("hair")] = [0, 0, 9, 1, 0, 0, 0, 0]
    root.features_labelled.parent.mkdir()
    save_labelled_features(root, keys, features, groups)
    stems = ["f_001", "f_003", "f_002", "f_000"]
    assert page.get(near).json()["images"] == [f"female/{s}" for s in stems]
    hair = page.get("/api/similar/hair_color/female/f_002").json()["images"]
    assert hair[:2] == ["female/f_002", "female/f_003"]
    assert page.get("/api/similar/mouth/female/f_009").status_code == 422  # added since


def test_a_malformed_csv_is_shown_and_nothing_is_written(
    root: DataRoot, page: httpx.Client
) -> None:
    root.hand_labels("eyes").parent.mkdir()
    root.hand_labels("eyes").write_text("gender,img_id,path,value\nfemale,0,f_000.jpg,2\n")
    assert (
        "train_output_eyes.csv, line 2: column value is '2'"
        in page.get("/api/labels/eyes").json()["problem"]
    )
    answer = page.post(
        "/api/labels", json={"labels": [label("f_001", 1.0, attribute="eyes")], "who": "kim"}
    )
    assert answer.status_code == 422
    assert "line 2" in answer.json()["detail"]


def test_only_known_images_and_the_pages_own_files_are_served(page: httpx.Client) -> None:
    for stem in (
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e%2f%2e%2e%2fgaip3.toml",
        "f_999",
        "f_000.jpg",
        "%00",
        "..\\f_000",
    ):
        for kind in ("thumbnail", "large"):
            assert page.get(f"/picture/{kind}/female/{stem}").status_code == 404
            assert page.get(f"/picture/{kind}/{stem}/f_000").status_code == 404
        assert page.get(f"/picture/region/eyes/female/{stem}").status_code == 404
    outside = (
        "/page/../guard.py",
        "/page/%2e%2e/guard.py",
        "/picture/refresh/x/before/..%2f..%2fmlflow.db",
        "/docs",
        "/openapi.json",
    )
    for path in outside:
        assert page.get(path).status_code == 404
    assert page.get("/page/label.js").status_code == 200


def test_what_cannot_be_a_picture_is_refused_with_its_reason(
    root: DataRoot, page: httpx.Client
) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(bytes(10_000_000)))
        + chunk(b"IEND", b"")
    )
    (root.original(FEMALE) / "bomb.png").write_bytes(bomb)
    (root.original(FEMALE) / "text.jpg").write_text("no picture")
    # although they were added after the start
    assert {"bomb", "text"} <= set(page.get("/api/labels/mouth").json()["columns"]["stem"])
    for stem, reason in (
        ("bomb", "too large"),
        ("text", "not a JPEG, PNG, WebP, BMP, TIFF or AVIF picture"),
    ):
        answer = page.get(f"/picture/large/female/{stem}")
        assert answer.status_code == 422
        assert reason in answer.json()["detail"]


def test_other_hosts_and_other_sites_are_refused(page: httpx.Client) -> None:
    sent = {"labels": [label("f_000", 1.0)], "who": "mallory"}
    assert (
        page.post("/api/labels", json=sent, headers={"Origin": "http://evil.example"}).status_code
        == 403
    )
    assert page.post("/api/labels", json=sent, headers={"Origin": "null"}).status_code == 403
    assert (
        page.post("/api/labels", json=sent, headers={"Sec-Fetch-Site": "cross-site"}).status_code
        == 403
    )
    assert page.get("/api/labels/mouth", headers={"Host": "evil.example"}).status_code == 403
    assert page.post("/api/labels", content="x" * 5_000_000).status_code == 403
    assert (
        page.post(
            "/api/labels", content=json.dumps(sent), headers={"Content-Type": "text/plain"}
        ).status_code
        == 422
    )
    assert page.get("/api/changes?since=0").json() == {"changes": []}
    own = {"Origin": str(page.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert page.post("/api/labels", json=sent, headers=own).status_code == 200


def test_beyond_this_machine_a_token_is_needed(root: DataRoot) -> None:
    with serving(root, "--host", "0.0.0.0", "--port", str(free_port())) as (link, _):
        link = link.replace("0.0.0.0", "127.0.0.1")
        address = link.partition("?")[0]
        assert httpx.get(f"{address}api/about").status_code == 403
        assert httpx.get(f"{address}?token=guess").status_code == 403
        with httpx.Client(follow_redirects=True) as client:
            first = client.get(link)
            assert first.status_code == 200
            assert "token" not in str(first.url)
            assert client.get(f"{address}api/about").status_code == 200
            cookie = first.history[0].headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=lax" in cookie.lower()


def test_on_loopback_the_port_is_closed_to_other_addresses(root: DataRoot) -> None:
    addresses = {
        a[4][0] for a in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    } - {"127.0.0.1"}
    outside = [a for a in addresses if not a.startswith("127.")]
    if not outside:
        pytest.skip("this machine has no address other than loopback")
    port = free_port()
    with serving(root, "--port", str(port)), pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{outside[0]}:{port}/")


def test_five_clients_lose_no_acknowledged_label_to_kill_9(root: DataRoot) -> None:
    """2,000 writes; the server is killed in the middle and started again, and the clients send
    again what was not answered."""
    port, each, clients = free_port(), 400, 5
    acknowledged: list[list[tuple[str, str, float]]] = [[] for _ in range(clients)]

    def work(k: int) -> None:
        rng = np.random.default_rng(k)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            for _ in range(each):
                i, gender = (
                    int(rng.integers(12)) * clients + k,
                    "female" if rng.random() < 0.5 else "male",
                )
                new = label(f"{gender[0]}_{i:03d}", float(rng.integers(5)) / 4, gender)
                while True:
                    try:
                        client.post(
                            "/api/labels", json={"labels": [new], "who": f"client {k}"}
                        ).raise_for_status()
                        break
                    except httpx.TransportError:
                        time.sleep(0.05)
                acknowledged[k].append((gender, new["stem"], new["value"]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(clients)]
    with serving(root, "--port", str(port)) as (_, process):
        for t in threads:
            t.start()
        while sum(map(len, acknowledged)) < each * clients // 2:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    told = [list(a) for a in acknowledged]
    assert sum(map(len, told)) < each * clients
    here = read_labels(root.hand_labels("mouth")).table
    found = dict(zip(zip(here.gender, here.stem, strict=True), here.value, strict=True))
    history = {(c.gender, c.stem): [] for c in LabelStore(root).history()}
    for c in LabelStore(root).history():
        history[c.gender, c.stem].append(c.after)
    for mine in told:
        for gender, stem, value in mine:
            assert value in history[gender, stem]
        # A label that was sent but not acknowledged may be stored, too: the next one of its client.
        last = {(gender, stem): value for gender, stem, value in mine}
        assert sum(found[key] != value for key, value in last.items()) <= 1

    with serving(root, "--port", str(port)):
        for t in threads:
            t.join(timeout=120)
    assert [len(a) for a in acknowledged] == [each] * clients
    table = read_labels(root.hand_labels("mouth")).table
    last = {(gender, stem): value for mine in acknowledged for gender, stem, value in mine}
    assert dict(zip(zip(table.gender, table.stem, strict=True), table.value, strict=True)) == last


def test_an_original_in_nfd_is_shown_and_labelled_in_either_spelling(root: DataRoot) -> None:
    nfc, nfd = (unicodedata.normalize(form, "\xe9 \uac00") for form in ("NFC", "NFD"))
    original = root.original(FEMALE) / f"{nfd}.jpg"
    (root.original(FEMALE) / "f_000.jpg").rename(original)
    resized = root.resized_picture("female", nfc)
    resized.parent.mkdir(parents=True)
    resized.write_bytes(b"the resized picture")
    page = TestClient(build_app(root), base_url="http://127.0.0.1:3100")
    assert nfc in page.get("/api/labels/eyes").json()["columns"]["stem"]
    for stem in (nfc, nfd):
        url = f"/picture/thumbnail/female/{quote(stem)}"
        assert page.get(url).content == b"the resized picture"
        assert page.get(f"/picture/large/female/{quote(stem)}").status_code == 200
        new = {"labels": [label(stem, 1.0, attribute="eyes")], "who": "kim"}
        assert page.post("/api/labels", json=new).json()["changes"][0]["stem"] == nfc
    assert LabelStore(root).values("eyes") == {("female", nfc): 1.0}


def test_the_plan_of_a_process_that_waited_is_that_of_the_present_settings(
    root: DataRoot,
) -> None:
    planner = Planner(root)
    planner.prepare()
    root.settings_file.write_text("[nvae]\nepoch = 3\n")
    try:
        refused = planner.plan()
        assert refused.returncode != 0
        assert b"epoch" in refused.stderr
        root.settings_file.unlink()
        planned = json.loads(planner.plan().stdout)
        assert "to make for the first time" in planned["summary"]
        assert {p["reasons"][0] for p in planned["plan"]} == {"never made"}
    finally:
        planner.close()


def test_pictures_of_assets_are_for_dagsters_pages_and_for_no_other_site(root: DataRoot) -> None:
    page = TestClient(build_app(root), base_url="http://127.0.0.1:3100")
    url = "/picture/asset/labels_eyes"
    assert page.get(url).headers["content-type"] == "image/svg+xml"  # nothing to see yet
    root.picture("labels_eyes").parent.mkdir(parents=True)
    cv2.imwrite(str(root.picture("labels_eyes")), np.zeros((20, 40, 3), np.uint8))
    for width, shape in ((None, (20, 40, 3)), (10, (5, 10, 3))):
        answer = page.get(url, params={"width": width} if width else None)
        assert cv2.imdecode(np.frombuffer(answer.content, np.uint8), 1).shape == shape
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert page.get(url, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert page.get("/picture/asset/..%2Fpage").status_code == 404


def test_a_full_disk_is_one_line_with_the_path_and_writing_goes_on_with_room(
    root: DataRoot,
) -> None:
    page = TestClient(build_app(root), base_url="http://127.0.0.1:3100")
    root.label_history.parent.mkdir(parents=True, exist_ok=True)
    root.label_history.symlink_to("/dev/full")  # every write fails as on a full disk
    new = {"labels": [label("f_000", 0.25)], "who": "kim"}
    answer = page.post("/api/labels", json=new)
    assert answer.status_code == 507
    assert answer.json() == {"detail": f"No space left on device: {root.label_history}"}
    assert not root.hand_labels("mouth").exists()
    root.label_history.unlink()
    assert page.post("/api/labels", json=new).status_code == 200
    assert LabelStore(root).values("mouth") == {("female", "f_000"): 0.25}
    assert [c.after for c in LabelStore(root).history()] == [0.25]
