"""Equal content of a source is equal: what people edit is stale only if its rows say something
else."""

import dagster as dg
import pytest

from gaip3_pipeline.assets import labels, photographs
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.refresh.plan import plan
from gaip3_pipeline.refresh.run import observe, observe_only
from gaip3_pipeline.tables.dropping import change_dropped
from gaip3_pipeline.tables.hashing import file_version
from gaip3_pipeline.tables.label_store import Edit, LabelStore
from gaip3_pipeline.versions import DATA_VERSION_TAG
from gaip3_pipeline_tests.refreshing import definitions_of, instance_of, made

D1, FEMALE, MALE = IMAGE_SETS
LABELS = (
    "gender,img_id,path,value\n"
    "male,0,resized/male/0001.jpg,0.5\n"
    "female,0,resized/female/a.jpg,1.0\n"
    "female,1,resized/female/b.jpg,0.25\n"
)
DROPPED = (
    f"path,reason\noriginal/{FEMALE.original}/a.jpg,by hand\noriginal/{D1.original}/x.jpg,no face\n"
)


@pytest.fixture
def root(tmp_path) -> DataRoot:
    root = DataRoot(tmp_path / "얼굴")
    for image_set, stems in ((D1, "xy"), (FEMALE, "ab"), (MALE, ["0001"])):
        folder = root.original(image_set)
        folder.mkdir(parents=True)
        for stem in stems:
            (folder / f"{stem}.jpg").write_bytes(stem.encode())
    write(root.hand_labels("mouth"), LABELS)
    return root


@pytest.fixture
def instance(root):
    with instance_of(root) as instance:
        yield instance


@pytest.fixture
def finished(root, instance):
    """The present plan of a root in which all assets that read a source were made: a function
    without arguments. All others are stale only after one of these."""
    definitions = definitions_of(root)
    read_sources = [f"resized_{s.id}" for s in IMAGE_SETS] + [f"labels_{a}" for a in ATTRIBUTES]

    def finish():
        observe(instance, root)
        for name in read_sources:
            made(instance, definitions, name, "first")

    def planned():
        observed = observe_only(instance, root)
        return {p.name for p in plan(definitions, instance, observed, read_sources)}

    finish()
    planned.again = finish
    return planned


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def drop(root, *stems, undo=False):
    change_dropped(root, [f"resized/{FEMALE.folder}/{s}.jpg" for s in stems], "by hand", undo)


def test_drops_taken_back_leave_nothing_stale(root, instance, finished):
    drop(root, "a", "b")
    assert {f"resized_{s.id}" for s in IMAGE_SETS} <= finished()
    observe(instance, root)  # as the UI's sensor does
    drop(root, "b", undo=True)
    drop(root, "a", undo=True)
    assert root.dropped.exists()
    assert finished() == set()
    drop(root, "b")
    finished.again()
    drop(root, "a")
    assert finished()
    drop(root, "a", undo=True)
    assert finished() == set()


@pytest.mark.parametrize(
    "content",
    [b"path,reason\n", b"\xef\xbb\xbfpath,reason\r\n", b"path,reason\n\n\n", b"path,reason,who\n"],
)
def test_a_list_without_rows_is_no_list(root, content):
    none = photographs.observe(root).version
    write(root.dropped, content)
    assert photographs.observe(root).version == none == "missing"


@pytest.mark.parametrize(
    "content",
    [
        "path,reason\n" + "".join(reversed(DROPPED.splitlines(keepends=True)[1:])),
        DROPPED.replace("\n", "\r\n"),
        "\ufeff" + DROPPED + "\n\n",
        DROPPED.replace("by hand", ""),
        DROPPED.replace(f"original/{FEMALE.original}", f"resized/{FEMALE.folder}"),
        DROPPED.replace("/", "\\"),
        "reason,path,note\nby hand,resized/female/a.jpg,twice\nno face,"
        f"original/{D1.original}/x.jpg,\n",
    ],
    ids=["order", "CRLF", "BOM", "no reason", "resized", "backslashes", "columns"],
)
def test_a_list_in_another_form_is_the_same_list(root, content):
    write(root.dropped, DROPPED)
    known = photographs.observe(root).version
    write(root.dropped, content)
    assert file_version(root.dropped) != known
    assert photographs.observe(root).version == known


@pytest.mark.parametrize(("old", "new"), [("no face", "blurred"), ("x.jpg", "y.jpg")])
def test_a_list_of_other_content_is_another_list(root, old, new):
    write(root.dropped, DROPPED)
    known = photographs.observe(root).version
    write(root.dropped, DROPPED.replace(old, new))
    assert photographs.observe(root).version not in (known, "missing")


@pytest.mark.parametrize(
    "content",
    [
        LABELS.splitlines(keepends=True)[0] + "".join(LABELS.splitlines(keepends=True)[:0:-1]),
        LABELS.replace("\n", "\r\n"),
        "\ufeff" + LABELS + "\r\n\r\n",
        LABELS.replace("1.0", "1").replace("0.5", "5e-1").replace("0.25", ".250"),
        LABELS.replace("value\n", "value,note\n")
        .replace(".5\n", ".5,blinks\n")
        .replace("1.0\n", '1.0,"a, b"\n')
        .replace(".25\n", ".25,\n"),
        LABELS.replace("resized/female/a.jpg", "dataset\\resized\\a.png"),
        LABELS.replace("female,1,", "Female, 7 ,"),
        LABELS + "female,1,resized/female/b.jpg,0.25\n",
    ],
    ids=["order", "CRLF", "BOM", "numbers", "column", "paths", "img_id", "repeated"],
)
def test_labels_in_another_form_are_the_same_labels(root, content):
    known = labels.observe(root, "mouth").version
    write(root.hand_labels("mouth"), content)
    assert labels.observe(root, "mouth").version == known


@pytest.mark.parametrize(
    "content",
    [
        LABELS.replace("0.25", "0.26"),
        LABELS.replace("b.jpg", "c.jpg"),
        LABELS.replace("male,0", "female,0"),
        "".join(LABELS.splitlines(keepends=True)[:-1]),
        LABELS.replace("0.25", "wide"),  # the step names file, line and remedy
    ],
)
def test_other_labels_are_other_content(root, content):
    known = labels.observe(root, "mouth").version
    write(root.hand_labels("mouth"), content)
    assert labels.observe(root, "mouth").version != known


def test_a_label_set_back_and_a_photograph_put_back_leave_nothing_stale(root, instance, finished):
    store = LabelStore(root)
    for value in (0.75, 1.0):
        store.apply([Edit("mouth", "female", "a", value)], "Kim")
        observe(instance, root)  # as the UI's sensor does
        assert bool(finished()) == (value == 0.75)
    store.apply([Edit("mouth", "female", "a", None)], "Kim", "tab")
    assert finished()
    store.undo("Kim", "tab")
    assert finished() == set()
    path = root.original(FEMALE) / "a.jpg"
    content = path.read_bytes()
    path.unlink()
    assert "resized_d2_female" in finished()
    write(path, content)
    assert finished() == set()


def test_a_root_whose_tables_were_hashed_by_their_bytes_stays_fresh(root, instance, finished):
    write(root.dropped, DROPPED)
    tables = {"hand_labels_mouth": root.hand_labels("mouth"), "dropped_images": root.dropped}
    for name, path in tables.items():
        tags = {DATA_VERSION_TAG: file_version(path)}
        instance.report_runless_asset_event(dg.AssetObservation(name, tags=tags))
    finished.again()
    assert finished() == set()
    write(root.hand_labels("mouth"), LABELS.replace("0.25", "0.26"))
    assert "labels_mouth" in finished()
    assert "labels_eyes" not in finished()
    write(root.hand_labels("mouth"), LABELS)
    assert finished() == set()


def test_the_version_of_a_source_without_history_is_that_of_its_rows(root):
    known = labels.observe(root, "mouth").version
    assert known not in (file_version(root.hand_labels("mouth")), "missing")
    assert labels.observe(root, "eyes").version == "missing"
