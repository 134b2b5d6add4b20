"""Names of photographs: every name that is accepted passes unchanged through all tables, pages,
exports and imports; the others are refused at the start, by name."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import httpx
import numpy as np
import pandas as pd
import pytest
from click.testing import Result

from gaip3_pipeline.assets.labels import read
from gaip3_pipeline.imaging.decode import UnusableImage
from gaip3_pipeline.imaging.processing import augment_set, resize_set
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot, retouched_photographs
from gaip3_pipeline.settings import Images
from gaip3_pipeline.tables.contracts import (
    read_gender_probabilities,
    read_input_values,
    read_label_review,
    read_labels,
    read_out_of_fold,
    write_gender_probabilities,
    write_input_values,
    write_label_review,
    write_labels,
)
from gaip3_pipeline.tables.duplicates import (
    group_table,
    read_dropped,
    read_group_table,
    write_group_table,
)
from gaip3_pipeline.tables.final import link_final, select_final
from gaip3_pipeline.tables.hand_tables import read_table
from gaip3_pipeline.tables.image_files import (
    DuplicateStems,
    by_stem,
    usable_images,
)
from gaip3_pipeline.tables.label_formats import WRITERS, read_label_file
from gaip3_pipeline.tables.label_store import Edit, LabelStore
from gaip3_pipeline.tables.manifests import UNUSABLE, read_manifest
from gaip3_pipeline.tables.names import printable, spelling_problem
from gaip3_pipeline.tables.splits import originals
from gaip3_pipeline_tests.imaging.pictures import jpeg, photograph
from gaip3_pipeline_tests.web.processes import free_port
from gaip3_pipeline_tests.web.test_label_page import serving

FEMALE = IMAGE_SETS[1]
# fmt: off
ACCEPTED = [
    "plain", " ", " a", "a ", "a  b", 'q"uote', '"quoted"', "it's", "com,ma", "semi;colon", "=1+1",
    "+1", "-1", "@a", "#1", "50%", "%41", "%2541", "a?b", "a&b=c", "007", "1e5", "0.50", "1_000",
    "NA", "nan", "null", "None", "True", "copy (1)", "a.b.c", "a.", "a..b", "a|b", "a:b", "a*b",
    "a\u00a0b", "a\u202fb", "<img src=x onerror=alert(1)>", "{{a}}", "${a}", "`a`", "얼굴", "é",
    "👨‍👩‍👧", "ab12cd34-plain", "dataset", "female", "x" * 234,
]
# fmt: on
REFUSED = {
    b"line\nbreak": "a line break or another control character",
    b"return\r": "a line break or another control character",
    b"tab\tin": "a line break or another control character",
    b"bell\x07": "a line break or another control character",
    "next\u2028line".encode(): "a line break or another control character",
    b"back\\slash": "a backslash, which tables read as a folder",
    b"\xff\xfe": "not valid UTF-8",
    b"y" * 235: "names made from it may have 255; shorten it by 1 bytes",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    """The resized pictures and copies of one set that has all names of ``ACCEPTED`` and
    ``REFUSED``."""
    root = DataRoot(tmp_path_factory.mktemp("names") / "얼굴 data")
    folder = root.original(FEMALE)
    folder.mkdir(parents=True)
    picture = jpeg(photograph(0, 64))
    for name in (*(n.encode() for n in ACCEPTED), *REFUSED):
        with open(os.fsencode(folder) + b"/" + name + b".jpg", "wb") as f:
            f.write(picture)
    resize_set(root, FEMALE, Images())
    augment_set(root, FEMALE, Images())
    return root


def values_of(root: DataRoot) -> dict[tuple[str, str], float]:
    """A value of each image, many different ones."""
    return {("female", name): i / len(ACCEPTED) for i, name in enumerate(ACCEPTED)}


def test_every_name_is_used_or_refused_with_a_row_of_the_manifest(root: DataRoot) -> None:
    for kind in ("resized", "augmented"):
        manifest = read_manifest(root.manifest(f"{kind}_d2_female"))
        used = manifest[manifest.status != UNUSABLE]
        folder = root.processed(kind, FEMALE)
        assert sorted(used.path) == sorted(f"{kind}/female/{n}.jpg" for n in ACCEPTED)
        assert {p.name for p in folder.iterdir()} == {f"{n}.jpg" for n in ACCEPTED}
        reasons = manifest[manifest.status == UNUSABLE].reason
        assert len(reasons) == len(REFUSED)
        for said in REFUSED.values():
            assert reasons.str.contains(said, regex=False).any()
        assert reasons.str.contains("rename|shorten").all()
        assert not (manifest.path + manifest.source).str.contains(r"[\n\r\t]").any()


def test_a_folder_of_originals_may_have_no_other_name_than_a_file(tmp_path: Path) -> None:
    assert spelling_problem("original/A/b c/é.jpg") == ""
    assert "control character" in spelling_problem("original/A/b\rc/e.jpg")
    assert "UTF-8" in spelling_problem("original/A/\udcff/e.jpg")
    with pytest.raises(DuplicateStems, match=r"two originals are called '\\\\xff'") as raised:
        by_stem([tmp_path / "\udcff.jpg", tmp_path / "\udcff.png"])
    str(raised.value).encode()


def test_every_name_can_be_labelled_changed_removed_and_brought_back(root: DataRoot) -> None:
    store, values = LabelStore(root), values_of(root)
    assert list(store.images["female"]) == sorted(ACCEPTED, key=lambda n: n + ".jpg")
    store.apply([Edit("mouth", *key, 0.0) for key in values], "kim")
    store.apply([Edit("mouth", *key, v) for key, v in values.items()], "kim", "tab")
    assert LabelStore(root).values("mouth") == values
    store.apply([Edit("mouth", *key, None) for key in values], "kim", "tab")
    for _ in values:
        store.undo("kim", "tab")
    again = LabelStore(root)
    assert again.values("mouth") == values
    assert {(c.gender, c.stem) for c in again.history()} == values.keys()

    checked = read(root, "mouth")
    assert checked.left_out == []
    write_labels(root.checked_labels("mouth"), checked.table)
    table = read_labels(root.checked_labels("mouth")).table
    assert dict(zip(zip(table.gender, table.stem, strict=True), table.value, strict=True)) == values


def test_every_name_survives_every_export_and_import(root: DataRoot, tmp_path: Path) -> None:
    values = values_of(root)
    images = {("female", p.stem): root.relative(p) for p in usable_images(root, FEMALE)}
    for name, write in WRITERS.items():
        path = tmp_path / name
        path.write_text(write({"mouth": values}, images), encoding="utf-8")
        found = read_label_file(path, {"female": set(ACCEPTED)}, "mouth")
        assert found.values == {"mouth": values}, name
        assert found.no_such_image.get("mouth", []) == []


def test_every_name_survives_the_tables_of_the_pipeline(root: DataRoot, tmp_path: Path) -> None:
    table = originals({"d2_female": read_manifest(root.manifest("resized_d2_female"))})
    # all pictures are equal here, but a group may have any name
    table["group"] = table.key
    pairs = [(i, i + 1, 1.0, 0, False) for i in range(len(table) - 1)]
    write_group_table(tmp_path / "groups.csv", group_table(table, pairs))
    assert set(read_group_table(tmp_path / "groups.csv").stem) == set(ACCEPTED)

    scored = table.assign(gender="female", value=0.5)
    scored.to_csv(tmp_path / "out.csv", index=False, lineterminator="\n")
    pd.testing.assert_frame_equal(read_out_of_fold(tmp_path / "out.csv"), scored, check_dtype=False)
    review = scored.assign(predicted=0.5, uncertainty=0.1, suspicion=np.nan, next=np.nan)
    write_label_review(tmp_path / "review.csv", review)
    assert read_label_review(tmp_path / "review.csv").stem.tolist() == scored.stem.tolist()

    paths = [f"{kind}/female/{n}.jpg" for kind in ("resized", "augmented") for n in ACCEPTED]
    scores = np.tile(np.float32([0.00001, 0.99999]), (len(paths), 1))
    write_gender_probabilities(tmp_path / "gender.csv", paths, scores)
    read_back = read_gender_probabilities(tmp_path / "gender.csv")
    assert read_back.image_path.tolist() == paths
    final = link_final(root, select_final(read_back, table, 0.9999))
    assert {p.name for p in root.final.iterdir()} == {
        f"{kind}_female_{n}.jpg" for kind in ("resized", "augmented") for n in ACCEPTED
    }
    assert all(
        os.path.samefile(root.path / p, root.path / s)
        for p, s in zip(final.path, final.source, strict=True)
    )
    write_input_values(tmp_path / "mouth.csv", "mouth", final.path, np.zeros(len(final)))
    assert read_input_values(tmp_path / "mouth.csv", "mouth").image_path.equals(final.path)


def test_every_name_can_be_dropped_and_brought_back(
    root: DataRoot, gaip3: Callable[..., Result]
) -> None:
    paths = [root.relative(p) for p in usable_images(root, FEMALE)]
    done = gaip3("drop", "--root", root.path, "--", *paths)
    assert done.exit_code == 0, done.output
    assert read_dropped(root.dropped).keys() == {("d2_female", n) for n in ACCEPTED}
    done = gaip3("drop", "--undo", "--root", root.path, "--", *paths)
    assert done.exit_code == 0, done.output
    assert read_dropped(root.dropped) == {}
    for name, said in REFUSED.items():
        path = f"original/{FEMALE.original}/{os.fsdecode(name)}.jpg"
        done = gaip3("drop", path, "--root", root.path)
        assert done.exit_code == 1
        assert said in done.output
        assert len(done.output.strip().splitlines()) == 1


def test_the_page_shows_and_labels_every_accepted_name(root: DataRoot) -> None:
    with (
        serving(root, "--port", str(free_port())) as (link, _),
        httpx.Client(base_url=link) as page,
    ):
        columns = page.get("/api/labels/eyes").raise_for_status().json()["columns"]
        assert set(columns["stem"]) == set(ACCEPTED)
        labels = [
            {"attribute": "eyes", "gender": "female", "stem": n, "value": v}
            for (_, n), v in values_of(root).items()
        ]
        page.post("/api/labels", json={"labels": labels, "who": "kim"}).raise_for_status()
        for name in ACCEPTED:
            for size in ("thumbnail", "large"):
                url = f"/picture/{size}/female/{quoted(name)}?v=1"
                assert page.get(url).raise_for_status().headers["content-type"] == "image/jpeg"
            query = {"attribute": "eyes", "gender": "female", "stem": name}
            [change] = page.get("/api/history", params=query).json()["changes"]
            assert change["stem"] == name
    assert LabelStore(root).values("eyes") == values_of(root)


def test_the_list_of_retouched_photographs_names_every_file(tmp_path: Path) -> None:
    from gaip3_pipeline.studio.photographs import retouch_photographs  # imports TensorFlow
    from gaip3_pipeline.studio.results import find_photographs

    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    names = [f"{os.fsdecode(n)}.png" for n in REFUSED] + [f"{n}.png" for n in ACCEPTED]
    names += ["z" * 251 + ".png"]
    for name in names:
        (folder / name).write_bytes(b"")  # an empty file is refused before any network is needed
    work = find_photographs(folder, out)
    studio = SimpleNamespace(settings=SimpleNamespace(images=Images()), photograph=no_picture)
    table = retouch_photographs(studio, work, 1)  # type: ignore[arg-type]
    assert sorted(table.file) == sorted(printable(name) for name in names)
    assert table.outcome[table.file == f"{'z' * 251}.png"].str.contains("name is too long").all()
    written = read_table(retouched_photographs(out)[0], ["file", "outcome"])
    assert [row["file"] for _, row in written.records(["file"])] == table.file.tolist()


def no_picture(data: bytes) -> None:
    raise UnusableImage("empty file")


def quoted(text: str) -> str:
    """``text`` as JavaScript's ``encodeURIComponent`` writes it."""
    return quote(text, safe="-_.!~*'()")
