"""Push and pull of snapshots: to a folder, and to two S3 servers, moto and Swift; the latter asks
for a key."""

import hashlib
import json
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import obstore
import pandas as pd
import pytest
from PIL import Image

from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.processes import gaip3 as command
from gaip3_pipeline.setup import remote
from gaip3_pipeline.setup.remote import Remote, RemoteError, pull, push
from gaip3_pipeline.setup.snapshots import restore, take
from gaip3_pipeline.tables.files import write_bytes_atomically
from gaip3_pipeline.tables.snapshots import find, snapshots
from gaip3_pipeline_tests import swift

pytestmark = pytest.mark.remote

FEW = 60


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    """A root of sixty small photographs and some labels."""
    root, generator = DataRoot(tmp_path / "here"), np.random.default_rng(1)
    folder = root.original(IMAGE_SETS[1])
    folder.mkdir(parents=True)
    root.settings_file.write_text('preset = "tiny"\n', encoding="utf-8")
    for i in range(FEW):
        Image.fromarray(generator.integers(0, 255, (40, 32, 3), np.uint8)).save(folder / f"{i}.jpg")
    root.labels.mkdir()
    rows = "".join(f"female,{i},ThisPersonDoesNotExist/Female/{i}.jpg,0.5\n" for i in range(FEW))
    root.hand_labels("mouth").write_text(f"gender,img_id,path,value\n{rows}", encoding="utf-8")
    take(root, "first")
    return root


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, dict[str, str]]]:
    """What the environment has of each S3 server; there is a bucket ``faces`` on both."""
    import boto3
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    with swift.serving() as other:
        found = {
            name: {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": key,
                "AWS_SECRET_ACCESS_KEY": secret,
                "AWS_REGION": "us-east-1",
            }
            for name, endpoint, key, secret in (
                ("moto", f"http://{host}:{port}", "somebody", "geheim"),
                ("swift", other.endpoint, other.key, other.secret),
            )
        }
        for about in found.values():
            boto3.client(
                "s3",
                endpoint_url=about["AWS_ENDPOINT_URL"],
                aws_access_key_id=about["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=about["AWS_SECRET_ACCESS_KEY"],
                region_name=about["AWS_REGION"],
            ).create_bucket(Bucket="faces")
        yield found
    moto.stop()


@pytest.fixture(params=["moto", "swift"])
def s3(
    request: pytest.FixtureRequest,
    servers: dict[str, dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """An empty place on an S3 server."""
    for name, value in servers[request.param].items():
        monkeypatch.setenv(name, value)
    return f"s3://faces/{tmp_path.name}"


@pytest.fixture(params=["file", "moto", "swift"])
def url(
    request: pytest.FixtureRequest,
    servers: dict[str, dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """An empty place in a folder or on an S3 server."""
    if request.param == "file":
        return f"file://{tmp_path}/there"
    for name, value in servers[request.param].items():
        monkeypatch.setenv(name, value)
    return f"s3://faces/{tmp_path.name}"


def contents(root: DataRoot) -> dict[str, str]:
    return {
        path.relative_to(root.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.path.rglob("*")
        if path.is_file() and root.state not in path.parents
    }


def objects(url: str) -> set[str]:
    return {str(meta["path"]) for part in obstore.list(Remote(url)._store) for meta in part}


def test_a_root_arrives_whole_and_only_what_changed_is_sent_again(root, url, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "SHARD_FILES", 25)
    sent = push(root, "first", url, with_pictures=True)
    assert (sent.files, sent.shards, sent.known) == (FEW + 2, 3, 0)
    there = DataRoot(tmp_path / "elsewhere")
    got, in_place = pull(there, url, "first")
    assert (got.files, in_place) == (FEW + 2, True)
    assert contents(there) == contents(root)
    assert find(there, "first").content == find(root, "first").content

    (root.original(IMAGE_SETS[1]) / "7.jpg").unlink()
    root.hand_labels("mouth").write_text(
        root.hand_labels("mouth").read_text().replace("0.5", "0.75", 3)
    )
    take(root, "second")
    sent = push(root, "second", url, with_pictures=True)
    assert (sent.files, sent.known) == (1, FEW)  # the labels
    got, in_place = pull(there, url, "second")
    assert (got.files, in_place) == (1, False)
    again = push(root, "second", url, with_pictures=True)
    assert (again.files, again.shards) == (0, 0)
    assert [s.name for s in Remote(url).snapshots()] == ["first", "second"]


def test_shards_are_archives_that_others_can_read(root, tmp_path):
    url = f"file://{tmp_path}/there"
    push(root, "first", url, with_pictures=True)
    [shard] = (tmp_path / "there" / "shards").iterdir()
    assert shard.stem == hashlib.sha256(shard.read_bytes()).hexdigest()
    with tarfile.open(shard) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            assert hashlib.sha256(file.read()).hexdigest() == member.name.partition(".")[0]
    table = pd.read_parquet(next((tmp_path / "there" / "manifests").iterdir()))
    row = table[table.path.str.endswith("/11.jpg")].iloc[0]
    whole = shard.read_bytes()
    picture = (root.original(IMAGE_SETS[1]) / "11.jpg").read_bytes()
    assert whole[row.offset : row.offset + row["size"]] == picture


def test_without_pictures_none_leaves_and_none_is_lost_on_the_way_back(root, url, tmp_path):
    push(root, "first", url, with_pictures=False)
    there = DataRoot(tmp_path / "elsewhere")
    pull(there, url, "first")
    assert set(contents(there)) == {"gaip3.toml", "labels/train_output_mouth.csv"}
    photographs = [p.read_bytes() for p in root.original(IMAGE_SETS[1]).iterdir()]
    if url.startswith("file"):
        sent = b"".join(p.read_bytes() for p in (tmp_path / "there").rglob("*") if p.is_file())
        assert not any(p in sent for p in photographs)
    own = there.original(IMAGE_SETS[1]) / "own.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(photographs[0])
    take(there, "own")
    restore(there, "first")
    assert own.exists()


def test_an_interrupted_push_is_not_visible_and_goes_on(root, url, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "SHARD_FILES", 25)

    def stop(done: int, of: int) -> None:
        if done >= 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(root, "first", url, True, stop)
    assert Remote(url).snapshots() == []
    shards = objects(url)
    assert len(shards) == 2
    push(root, "first", url, True)
    assert shards < objects(url)
    assert len(objects(url)) == 5  # one more shard, a table, a snapshot

    there = DataRoot(tmp_path / "elsewhere")
    with pytest.raises(KeyboardInterrupt):
        pull(there, url, "first", stop)
    assert snapshots(there) == []
    got, _ = pull(there, url, "first")
    assert got.files <= FEW + 2 - 50
    assert contents(there) == contents(root)


def test_a_push_killed_by_force_leaves_nothing_visible(root, tmp_path):
    url = f"file://{tmp_path}/there"
    words = command("push", url, "first", "--with-pictures", "--root", str(root.path))
    for wait in (0.5, 1.0, 1.5):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        process.kill()
        process.wait()
        for snapshot in Remote(url).snapshots():  # it was done before the kill
            assert snapshot.files == FEW + 2
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there = DataRoot(tmp_path / "elsewhere")
    pull(there, url, "first")
    assert contents(there) == contents(root)


def test_a_pull_that_was_killed_while_it_put_files_in_place_goes_on(root, tmp_path, monkeypatch):
    url = f"file://{tmp_path}/there"
    push(root, "first", url, with_pictures=True)
    there = DataRoot(tmp_path / "elsewhere")

    def killed(here: DataRoot, name: str) -> None:
        write_bytes_atomically(here.settings_file, root.settings_file.read_bytes())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(remote, "restore", killed)
        with pytest.raises(KeyboardInterrupt):
            pull(there, url, "first")
    assert pull(there, url, "first")[1]
    assert contents(there) == contents(root)
    assert not pull(there, url, "first")[1]


def test_what_a_killed_push_left_in_a_folder_is_not_seen_and_removed_by_the_next(root, tmp_path):
    url, there = f"file://{tmp_path}/there", tmp_path / "there"
    push(root, "first", url, with_pictures=True)
    gone = f".writing-{socket.gethostname()}~1~0~x"  # no process has this number and this start
    for name in ("shards", "snapshots"):
        (there / name / f"{gone}.json").write_bytes(b"half")
        (there / name / f"{gone}y").mkdir()
        (there / name / f"{gone}y" / "second.json").write_bytes(b"half")
    assert [s.name for s in Remote(url).snapshots()] == ["first"]
    push(root, "first", url, with_pictures=True)
    assert not list(there.rglob(".writing*"))


def test_of_two_pushers_of_one_name_one_is_told_and_nothing_is_lost(root, url, tmp_path):
    other = DataRoot(tmp_path / "other")
    shutil.copytree(root.path, other.path)
    shutil.rmtree(other.snapshots)
    other.settings_file.write_text('preset = "demo"\n', encoding="utf-8")
    take(other, "first")
    push(root, "first", url, True)
    with pytest.raises(RemoteError, match="has another snapshot first: push yours under another"):
        push(other, "first", url, True)
    there = DataRoot(tmp_path / "elsewhere")
    pull(there, url, "first")
    assert contents(there) == contents(root)
    with pytest.raises(FileExistsError):
        Remote(url).create("snapshots/first.json", b"{}")


def test_a_create_that_lost_the_race_is_refused_by_the_server(s3, monkeypatch):
    place = f"{s3}/race"
    Remote(place).create("snapshots/a.json", b"1")
    monkeypatch.setattr(Remote, "has", lambda self, name: False)  # as if both had looked before
    with pytest.raises(FileExistsError):
        Remote(place).create("snapshots/a.json", b"2")


def test_a_damaged_shard_is_refused_by_its_hash_and_fetched_again(root, tmp_path, monkeypatch):
    url = f"file://{tmp_path}/there"
    push(root, "first", url, True)
    honest, damaged = Remote.parts, []

    def once(self, shard, places):
        for data in honest(self, shard, places):
            if not damaged:
                damaged.append(data)
                data = bytes([data[0] ^ 1]) + data[1:]
            yield data

    monkeypatch.setattr(Remote, "parts", once)
    there = DataRoot(tmp_path / "elsewhere")
    pull(there, url, "first")
    assert damaged
    assert contents(there) == contents(root)

    monkeypatch.undo()
    [shard] = (tmp_path / "there" / "shards").iterdir()
    data = bytearray(shard.read_bytes())
    data[515] ^= 1  # of the first file
    shard.write_bytes(data)
    with pytest.raises(RemoteError, match=f"is damaged there: delete shards/{shard.name}"):
        pull(DataRoot(tmp_path / "third"), url, "first")
    assert not (tmp_path / "third" / "original").exists()


def test_a_few_files_are_read_by_range(root, tmp_path, monkeypatch):
    url = f"file://{tmp_path}/there"
    push(root, "first", url, True)
    there = DataRoot(tmp_path / "elsewhere")
    pull(there, url, "first")
    table = remote.files_of(there, find(there, "first"))
    row = table[table.path.str.endswith("/11.jpg")].iloc[0]
    (there.snapshots / "files" / row.sha256[:2] / row.sha256).unlink()
    asked: list[list[tuple[int, int]]] = []
    honest = Remote.parts

    def counted(self, shard, places):
        asked.append(places)
        return honest(self, shard, places)

    monkeypatch.setattr(Remote, "parts", counted)
    got, _ = pull(there, url, "first")
    assert got.files == 1
    assert asked == [[(row.offset, row["size"])]]


def test_a_file_is_taken_out_of_all_snapshots_and_their_shards(root, url, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "SHARD_FILES", 25)
    gone = root.original(IMAGE_SETS[1]) / "7.jpg"
    secret, path = gone.read_bytes(), root.relative(gone)
    (root.original(IMAGE_SETS[1]) / "8.jpg").unlink()
    take(root, "second")
    for name in ("first", "second"):
        push(root, name, url, with_pictures=True)
    old, before = list[str](), objects(url)

    def without(snapshot, table):
        return (table[table.path != path] if path in set(table.path) else table), {}

    remote.rewrite(root, Remote(url), without, old.extend)
    assert set(old) < before  # nothing was deleted yet
    Remote(url).delete(old)
    assert len([name for name in old if name.startswith("shards")]) == 1
    left = [bytes(obstore.get(Remote(url)._store, name).bytes()) for name in objects(url)]
    assert not any(secret in data for data in left)
    there = DataRoot(tmp_path / "elsewhere")
    for name, files in (("first", FEW - 1), ("second", FEW - 2)):
        pull(there, url, name)
        restore(there, name)
        assert len(list(there.original(IMAGE_SETS[1]).iterdir())) == files
        assert find(there, name).content == Remote(url).snapshot(name).content


ODD_ROWS = [
    *(
        ("path", path)
        for path in ("/{}", "../{}", "original/../../{}", "{}", ".gaip3/dagster.yaml")
    ),
    *(("path", path) for path in ("", "labels\0", "original/a/../../../../{}")),
    *(("sha256", "../{}"), ("shard", "../{}"), ("size", -1), ("offset", -1), ("kind", "odd")),
]


@pytest.mark.parametrize(("column", "value"), ODD_ROWS)
def test_a_table_from_elsewhere_leads_to_no_file_outside_the_root(
    root, tmp_path, gaip3, column, value
):
    url, there = f"file://{tmp_path}/there", tmp_path / "there"
    push(root, "first", url, with_pictures=True)
    [old] = (there / "manifests").iterdir()
    table = pd.read_parquet(old)
    value = value.replace("{}", f"{tmp_path}/outside"[1:]) if isinstance(value, str) else value
    table.loc[3, column] = value
    table.to_parquet(old, index=False)
    pointer = there / "snapshots" / "first.json"
    about = json.loads(pointer.read_text())
    about["manifest"] = hashlib.sha256(old.read_bytes()).hexdigest()
    old.rename(old.with_name(f"{about['manifest']}.parquet"))
    pointer.write_text(json.dumps(about))
    before = set(tmp_path.iterdir())
    done = gaip3("pull", url, "first", "--root", tmp_path / "elsewhere")
    assert done.exit_code == 1
    assert f"a snapshot cannot have the {column}" in done.output
    assert set(tmp_path.iterdir()) == before | {tmp_path / "elsewhere"}
    assert not (tmp_path / "elsewhere" / "original").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../other"},
        {"name": 5},
        {"manifest": "../../x"},
        {"files": "many"},
        {"created": None},
    ],
)
def test_a_pointer_from_elsewhere_is_checked(root, tmp_path, gaip3, change):
    url, pointer = f"file://{tmp_path}/there", tmp_path / "there" / "snapshots" / "first.json"
    push(root, "first", url, with_pictures=True)
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | change))
    for text in (pointer.read_bytes(), b"[" * 100_000, b"\xff"):
        pointer.write_bytes(text)
        done = gaip3("pull", url, "--root", tmp_path / "elsewhere")
        assert done.exit_code == 1
        assert "Error: the snapshot first is damaged: " in done.output
        assert not list((tmp_path / "elsewhere").rglob("*.json"))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/somewhere", "is not the address of a store: write file:///FOLDER"),
        ("ftp://x/y", "is not the address of a store"),
        ("s3://key:geheim@bucket/x", "the URL contains a key"),
    ],
)
def test_addresses_that_do_not_work_are_one_line(root, gaip3, address, said):
    done = gaip3("push", address, "first", "--with-pictures", "--root", root.path)
    assert done.exit_code == 1
    assert said in done.output
    assert "geheim" not in done.output


def test_a_store_that_does_not_answer_or_lacks_the_snapshot_is_one_line(
    root, gaip3, s3, tmp_path, monkeypatch
):
    done = gaip3("pull", s3, "first", "--root", tmp_path / "new")
    assert done.output.strip().endswith(f"{s3} has no snapshot first")
    done = gaip3("pull", s3, "--root", tmp_path / "new")
    assert "has no snapshots: gaip3 push sends one there" in done.output
    done = gaip3("push", "s3://nowhere", "first", "--with-pictures", "--root", root.path)
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    assert "see that the address, the keys" in done.output


def test_a_wrong_key_is_refused_in_one_line_and_nothing_is_sent(
    root, gaip3, servers, tmp_path, monkeypatch
):
    for name, value in servers["swift"].items():
        monkeypatch.setenv(name, value)
    url = f"s3://faces/{tmp_path.name}"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "somebody-elses")
    done = gaip3("push", url, "first", "--with-pictures", "--root", root.path)
    assert done.exit_code == 1
    assert "SignatureDoesNotMatch" in done.output or "403" in done.output
    assert "the keys in the environment" in done.output
    assert "Traceback" not in done.output
    assert "somebody-elses" not in done.output
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", servers["swift"]["AWS_SECRET_ACCESS_KEY"])
    assert objects(url) == set()


def test_no_secret_is_sent(root, servers, tmp_path, monkeypatch):
    secret = servers["swift"]["AWS_SECRET_ACCESS_KEY"]
    for name, value in servers["swift"].items():
        monkeypatch.setenv(name, value)
    url = f"s3://faces/{tmp_path.name}"
    push(root, "first", url, True)
    store = Remote(url)._store
    sent = b"".join(bytes(store.get(name).bytes()) for name in objects(url))
    assert secret.encode() not in sent


def test_what_was_pulled_is_fresh_and_draws_the_same_faces(root_copy, gaip3, tmp_path):
    take(root_copy, "whole")
    url = f"file://{tmp_path}/there"
    push(root_copy, "whole", url, True)
    there = tmp_path / "elsewhere" / "faces"
    done = gaip3("pull", url, "--root", there)
    assert done.exit_code == 0, done.output
    assert "it is in place" in done.output
    plan = gaip3("refresh", "--dry-run", "--root", there)
    assert "Nothing is stale: 0 assets" in plan.output
    pictures = []
    for root in (root_copy.path, there):
        file = tmp_path / f"{len(pictures)}.png"
        done = gaip3("generate", "--seed", 3, "--out", file, "--root", root)
        assert done.exit_code == 0, done.output
        pictures.append(np.asarray(Image.open(file)))
    assert (pictures[0] == pictures[1]).all()
    assert (DataRoot(there).report).exists()
    said = subprocess.run(
        [sys.executable, "-c", RUNS, str(there)], capture_output=True, text=True, check=True
    )
    counts = json.loads(said.stdout.splitlines()[-1])
    assert counts["nvae_weights"] >= 1


RUNS = """
import json, sys
from pathlib import Path
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import load
root = DataRoot(Path(sys.argv[1]))
client = tracking_of(root, load(root)).client()
print(json.dumps({m.name: len(client.search_model_versions(f"name='{m.name}'"))
                  for m in client.search_registered_models()}))
"""
