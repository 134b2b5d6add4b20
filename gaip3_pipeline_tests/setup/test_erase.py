"""Erased photographs are nowhere: their bytes, their pixels and their names are looked for in every
file of a root, of its snapshots and of a store."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import dagster as dg
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from gaip3_pipeline.cli import main
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.refresh.run import only_one
from gaip3_pipeline.setup import erase as erasing
from gaip3_pipeline.setup import remote
from gaip3_pipeline.setup.erase import EraseError, erase, prepare
from gaip3_pipeline.setup.remote import Remote, pull, push
from gaip3_pipeline.setup.snapshots import restore, take
from gaip3_pipeline.tables.files import write_text_atomically
from gaip3_pipeline.tables.label_store import Edit, LabelStore
from gaip3_pipeline.tables.snapshots import files_of, find, snapshots
from gaip3_pipeline.web import servers
from gaip3_pipeline_tests.refreshing import instance_of, plan_of

D1, FEMALE, MALE = IMAGE_SETS


@dataclass
class Case:
    """A root in which two photographs were erased: ``alone`` has a stem of its own, and a male
    original has the stem of ``twin``."""

    root: DataRoot
    store: Path
    alone: str
    twin: str
    secrets: list[bytes]
    pixels: list[np.ndarray]
    sheets: list[str]  # that showed one of them
    before: dict[str, str]
    output: str

    @property
    def url(self) -> str:
        return f"file://{self.store}"


@pytest.fixture(scope="module")
def case(
    copy_finished_root: Callable[[Path], DataRoot], tmp_path_factory: pytest.TempPathFactory
) -> Case:
    folder = tmp_path_factory.mktemp("erase")
    root, store = copy_finished_root(folder / "root"), folder / "store"
    table = pd.read_parquet(root.manifest("final_dataset"))
    final = [k.split("/")[1] for k in table.original if k.startswith("d2_female/")]
    male = {p.stem for p in root.original(MALE).iterdir()}
    alone = next(s for s in final if s not in male)
    twin = next(s for s in final if s in male and s != alone)
    traces_by_hand(root, alone, twin)
    own = [
        place
        for stem in (alone, twin)
        for place in (root.original(FEMALE) / f"{stem}.jpg", root.resized_picture("female", stem))
    ]
    secrets = [place.read_bytes() for place in own]
    pixels = [cv2.imread(str(place)) for place in own[1::2]]
    sheets = [str(p.relative_to(root.path)) for p in root.all_pictures() if shows(p, pixels)]
    take(root, "one")
    push(root, "one", f"file://{store}", with_pictures=True)
    LabelStore(root).apply([Edit("mouth", "female", alone, 0.25)], "me", "s")
    take(root, "two")
    push(root, "two", f"file://{store}", with_pictures=True)
    before = hashes(root)
    names = [f"original/{FEMALE.original}/{stem}.jpg" for stem in (alone, twin)]
    words = ["erase", *names, "--at", f"file://{store}", "--yes", "--root", str(root.path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.environ", dict(os.environ))
        done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return Case(root, store, alone, twin, secrets, pixels, sheets, before, done.output)


def traces_by_hand(root: DataRoot, alone: str, twin: str) -> None:
    """Traces that the finished root does not have by itself."""
    store = LabelStore(root)
    store.apply([Edit("mouth", "female", alone, 0.5), Edit("eyes", "female", alone, None)], "me")
    store.apply([Edit("mouth", "male", twin, 1.0)], "me", "s")
    store.apply([Edit("mouth", "female", twin, 0.0)], "me")
    store.undo("me", "s")
    write_text_atomically(
        root.label_examples,
        json.dumps({"mouth": {"0": ["female", alone], "1": ["male", twin]}}),
    )
    write_text_atomically(root.dropped, f"path,reason\noriginal/{FEMALE.original}/{alone}.jpg,x\n")
    header, *_ = root.near_duplicates.read_text().splitlines()
    keys = f"d2_female/{alone}", f"d2_male/{twin}"
    rows = [
        f"{keys[0]},{k.replace('/', ',')},resized/x/{k.split('/')[1]}.jpg,{other},0.99,1,0"
        for k, other in (keys, keys[::-1])
    ]
    write_text_atomically(root.near_duplicates, "\n".join([header, *rows, ""]))
    write_text_atomically(root.refresh_log, f"resized/female/{alone}.jpg: odd\n{alone}.jpg\nend\n")
    named = f"augmented/female/{alone}.jpg: odd"
    with instance_of(root) as instance:
        event = dg.AssetObservation("noted_by_hand", metadata={"noted": [named, "another"]})
        instance.report_runless_asset_event(event)


def hashes(root: DataRoot) -> dict[str, str]:
    return {
        path.relative_to(root.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.path.rglob("*")
        if path.is_file() and root.state not in path.parents
    }


def shows(sheet: Path, pixels: list[np.ndarray]) -> bool:
    """Whether a picture has one of ``pixels`` in it, at its own size."""
    image = cv2.imread(str(sheet))
    fits = image is not None and image.shape[0] >= 128 and image.shape[1] >= 104
    return fits and any(
        cv2.matchTemplate(image, one, cv2.TM_CCOEFF_NORMED).max() > 0.97 for one in pixels
    )


def texts_of(path: Path) -> Iterator[str]:
    """The values of tables whose bytes are compressed, or paged."""
    if path.suffix == ".parquet" or path.read_bytes()[:4] == b"PAR1":
        for _, column in pd.read_parquet(path).items():
            yield from map(str, column)
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                if arrays[name].dtype.kind == "U":
                    yield from arrays[name].tolist()
    elif path.read_bytes()[:15] == b"SQLite format 3":
        with closing(sqlite3.connect(path)) as db:
            for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
                for row in db.execute(f'SELECT * FROM "{table}"'):
                    yield from map(str, row)


def files_below(*folders: Path) -> list[Path]:
    logs = ("-wal", "-shm")  # of databases that this process has open; SQLite removes them
    found = [p for f in folders for p in f.rglob("*") if p.is_file() and not p.name.endswith(logs)]
    assert len(found) > 100
    return found


def test_no_file_holds_a_name(case):
    for path in files_below(case.root.path, case.store):
        assert case.alone not in str(path)
        assert case.alone.encode() not in path.read_bytes(), path
        assert not any(case.alone in text for text in texts_of(path)), path


def test_no_file_holds_bytes_or_pixels(case):
    arrays = 0
    small = [p[:, :, ::-1] for p in case.pixels]
    for path in files_below(case.root.path, case.store):
        data = path.read_bytes()
        assert not any(secret in data for secret in case.secrets), path
        if data[:6] == b"\x93NUMPY":
            arrays += 1
        assert not any(one.tobytes() in data for one in small), path
    assert arrays == 0  # they are packed again by a refresh


def test_sheets_that_showed_them_are_gone_everywhere(case):
    assert case.sheets, "no sheet showed them, so this test would prove nothing"
    for sheet in case.sheets:
        assert not (case.root.path / sheet).exists()
    left = [p for p in files_below(case.root.path) if p.suffix in (".jpg", ".png", ".webp")]
    originals = {case.root.originals, case.root.path / "resized", case.root.path / "augmented"}
    sheets = [p for p in left if not originals & set(p.parents) and p.parent != case.root.final]
    assert not [p for p in sheets if shows(p, case.pixels)]
    for path in case.root.dagster_storage.rglob("*.db"):
        assert b"data:image" not in path.read_bytes(), path


def test_a_photograph_of_the_same_stem_and_everything_else_survives(case):
    root, twin = case.root, case.twin
    after = hashes(root)
    pictures = ("original/", "resized/", "augmented/", "final/", "samples/", "retouched/")
    gone = {p for p in case.before if p.startswith(pictures)} - set(after)
    stems = (case.alone, twin)
    assert gone == {
        *(f"original/{FEMALE.original}/{s}.jpg" for s in stems),
        *(f"{kind}/female/{s}.jpg" for kind in ("resized", "augmented") for s in stems),
        *(p for p in case.before if p.startswith("final/") and p.endswith(
            tuple(f"_female_{s}.jpg" for s in stems))),
    }  # fmt: skip
    weights = {p for p in case.before if p.endswith(".weights.h5")}
    assert weights
    for path in after.keys() & case.before.keys():
        if (path.startswith(pictures) and path != "original/truth.csv") or path in weights:
            assert after[path] == case.before[path], path
    store = LabelStore(root)
    values = store.values("mouth")
    assert ("male", twin) in values
    assert ("female", twin) not in values
    assert len(values) > 20
    history = store.history()
    assert [(c.id, c.gender, c.stem, c.undoes) for c in history] == [
        (1, "male", twin, 0),
        (2, "male", twin, 1),
    ]
    assert json.loads(root.label_examples.read_text()) == {"mouth": {"1": ["male", twin]}}
    assert root.dropped.read_text() == "path,reason\n"
    near = pd.read_csv(root.near_duplicates)
    assert near.group.tolist() == near.twin.tolist() == [f"d2_male/{twin}"]
    assert root.refresh_log.read_text().splitlines() == ["(erased): odd", "(erased)", "end"]
    with instance_of(root) as instance:
        [seen] = instance.fetch_observations(dg.AssetKey("noted_by_hand"), limit=1).records
        assert seen.asset_observation is not None
        noted = seen.asset_observation.metadata["noted"]
    assert noted.value == ["(erased): odd", "another"]


def test_the_next_refresh_makes_again_what_is_gone(case):
    planned = {p.name for p in plan_of(case.root) if p.certain}
    assert {"resized_d2_female", "labels_mouth"} <= planned
    for sheet in case.sheets:
        assert Path(sheet).name.split(".")[0] in {p.name for p in plan_of(case.root)}


def test_the_output_names_places_weights_and_the_way_on(case):
    lines = case.output.splitlines()
    deleted = [line for line in lines if ": deleted: " in line]
    assert len(deleted) == 5  # in the root, two snapshots here and two at the store
    assert all("original 2, " in line for line in deleted)
    assert any(line.startswith(f"{case.url}, snapshot two: written again") for line in lines)
    assert "nvae_weights (2" in case.output
    assert f"gaip3 refresh --root {case.root.path}" in lines[-1]


def test_snapshots_are_whole_and_can_be_restored(case, tmp_path):
    root = case.root
    for snapshot in snapshots(root):
        for row in files_of(root, snapshot).itertuples():
            file = root.snapshot_files / row.sha256[:2] / row.sha256
            assert file.stat().st_size == row.size
            assert hashlib.sha256(file.read_bytes()).hexdigest() == row.sha256, row.path
    there = DataRoot(tmp_path / "elsewhere")
    pull(there, case.url, "one")
    assert find(there, "one").content == find(root, "one").content
    assert not (there.original(FEMALE) / f"{case.alone}.jpg").exists()
    assert (there.original(MALE) / f"{case.twin}.jpg").exists()
    assert LabelStore(there).history()[-1].stem == case.twin
    take(root, "now")
    restore(root, "two")
    assert plan_of(root)


# A small root, without history


@pytest.fixture
def small(tmp_path: Path) -> DataRoot:
    root, generator = DataRoot(tmp_path / "here"), np.random.default_rng(1)
    folder = root.original(FEMALE)
    folder.mkdir(parents=True)
    root.settings_file.write_text('preset = "tiny"\n', encoding="utf-8")
    for name in ["unlabelled", *(f"face {i}" for i in range(20))]:
        picture = Image.fromarray(generator.integers(0, 255, (40, 32, 3), np.uint8))
        picture.save(folder / f"{name}.jpg")
    root.labels.mkdir()
    rows = "".join(f"female,{i},Female/face {i}.jpg,0.5\n" for i in range(20))
    root.hand_labels("mouth").write_text(f"gender,img_id,path,value\n{rows}", encoding="utf-8")
    take(root, "first")
    return root


@pytest.fixture
def store(small: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(remote, "SHARD_FILES", 8)
    push(small, "first", f"file://{tmp_path}/store", with_pictures=True)
    return tmp_path / "store"


SEVENTH = f"original/{FEMALE.original}/face 7.jpg"


def test_an_erase_that_is_interrupted_anywhere_goes_on(small, store, monkeypatch):
    secret = (small.path / SEVENTH).read_bytes()
    steps = 0

    def interrupted_at(number: int) -> bool:
        """Erase, with an interruption before the change of this number; whether there was one."""
        nonlocal steps
        steps = 0

        def counted(change):
            def before(*words, **more):
                nonlocal steps
                steps += 1
                if steps == number:
                    raise KeyboardInterrupt
                return change(*words, **more)

            return before

        with monkeypatch.context() as patch:
            for place, name in (
                (Path, "unlink"),
                (erasing, "write_bytes_atomically"),
                (erasing, "write_pointer"),
                (erasing, "forget"),
                (Remote, "put"),
                (Remote, "replace"),
                (Remote, "delete"),
            ):
                patch.setattr(place, name, counted(getattr(place, name)))
            try:
                erase(small, prepare(small, [SEVENTH], f"file://{store}"), f"file://{store}")
            except KeyboardInterrupt:
                return True
        return False

    number = 1
    while interrupted_at(number):
        assert small.erasing.exists()
        with pytest.raises(EraseError, match="an erase was interrupted: run gaip3 erase"):
            prepare(small, [SEVENTH.replace("7", "8")])
        for snapshot in Remote(f"file://{store}").snapshots():  # it is there at any moment
            table = Remote(f"file://{store}").table(snapshot, small)
            assert all((store / "shards" / f"{shard}.tar").exists() for shard in table.shard)
        number += 1
    assert number > 8
    assert not small.erasing.exists()
    for path in [p for p in (*small.path.rglob("*"), *store.rglob("*")) if p.is_file()]:
        data = path.read_bytes()
        assert secret not in data, path
        assert b"face 7" not in data, path
        assert not any("face 7" in text for text in texts_of(path)), path
    there = DataRoot(small.path.with_name("third"))
    pull(there, f"file://{store}", "first")
    assert len(list(there.original(FEMALE).iterdir())) == 20
    assert len(LabelStore(there).values("mouth")) == 19


def test_nothing_is_erased_while_others_work_or_without_a_yes(small, gaip3):
    def said(*words: object) -> str:
        done = gaip3("erase", *words, "--root", small.path)
        assert done.exit_code == 1
        assert (small.path / SEVENTH).exists()
        return done.output.strip()

    with only_one(small):
        assert "another refresh of" in said(SEVENTH, "--yes")
    with servers.only_one(small, {"": "http://x"}):
        assert "is served already" in said(SEVENTH, "--yes")
    assert "give --yes" in said(SEVENTH)
    unknown = said("original/nowhere/x.jpg", "--yes")
    assert "no original of that name" in unknown
    assert len(unknown.splitlines()) == 1
    assert "no original of that name" in said("labels/train_output_mouth.csv", "--yes")


def test_a_photograph_of_which_no_table_knows_is_erased(small, store):
    url, path = f"file://{store}", SEVENTH.replace("face 7", "unlabelled")
    labels = small.hand_labels("mouth").read_bytes()
    secret = (small.path / path).read_bytes()
    erase(small, prepare(small, [path], url), url)
    assert small.hand_labels("mouth").read_bytes() == labels
    for place in (*small.path.rglob("*"), *store.rglob("*")):
        assert not place.is_file() or secret not in place.read_bytes()
    assert find(small, "first").content == Remote(url).snapshot("first").content


def test_photographs_whose_names_contain_its_name_stay(small):
    names = ["face 7 b", "my face 7", "face 7.1", "face 71"]
    for name in names:
        (small.path / SEVENTH.replace("face 7", name)).write_bytes(name.encode())
    with small.hand_labels("mouth").open("a", encoding="utf-8") as file:
        file.writelines(f"female,0,resized/female/{name}.jpg,1\n" for name in names)
    text = "".join(f"resized/female/{n}.jpg: odd\n{n}.jpg\nd2_female/{n} x\n" for n in names)
    text += "".join(f"final/resized_female_{name}.jpg, {SEVENTH[:-10]}{name}\n" for name in names)
    write_text_atomically(small.refresh_log, text + f"{SEVENTH} is face 7.jpg, female/face 7.\n")
    erase(small, prepare(small, [SEVENTH]))
    assert small.refresh_log.read_text() == f"{text}(erased) is (erased), (erased).\n"
    labels = LabelStore(small).values("mouth")
    assert {("female", name) for name in names} <= labels.keys()
    assert ("female", "face 7") not in labels


def test_a_photograph_that_only_a_snapshot_has_can_be_erased(small):
    (small.path / SEVENTH).unlink()
    erase(small, prepare(small, [SEVENTH]))
    assert SEVENTH not in set(files_of(small, find(small, "first")).path)
    with pytest.raises(EraseError, match="no original of that name"):
        prepare(small, [SEVENTH])


def test_a_photograph_that_was_renamed_since_goes_under_both_names(small):
    renamed = SEVENTH.replace("face 7", "other")
    (small.path / SEVENTH).rename(small.path / renamed)
    copy = SEVENTH.replace("face 7", "copy of 8")
    (small.path / copy).write_bytes((small.path / SEVENTH.replace("7", "8")).read_bytes())
    erase(small, prepare(small, [renamed, copy]))
    left = set(files_of(small, find(small, "first")).path)
    assert SEVENTH not in left
    assert SEVENTH.replace("7", "8") in left  # it is still in the root
