"""The painted data set: the contracts of its folders and tables, determinism, resuming, and the
properties of its simulated labels."""

import cv2
import numpy as np
import pandas as pd
import pytest

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.faces.dataset import DatasetError, hand_labels, portraits, write_dataset
from gaip3_pipeline.faces.writing import paint_files
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.settings import Faces

SMALL = Faces(d1=5, female=7, male=6, size=48, seed=3)


def contents(root: DataRoot) -> dict[str, bytes]:
    return {
        p.relative_to(root.path).as_posix(): p.read_bytes()
        for p in sorted(root.path.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> DataRoot:
    root = DataRoot(tmp_path_factory.mktemp("얼굴 faces"))
    write_dataset(root, SMALL)
    return root


@pytest.fixture(scope="module")
def many() -> tuple[list, dict[str, pd.DataFrame], pd.DataFrame]:
    """1,040 women and 500 men, which are not painted, with their labels and exact values."""
    wanted = portraits(Faces(d1=0, female=1040, male=500))
    truth = pd.DataFrame(
        [
            {
                "gender": p.face.sex,
                "stem": p.file[:-4],
                **{a: getattr(p.face, a) for a in ATTRIBUTES},
            }
            for p in wanted
        ]
    )
    return wanted, {a: hand_labels(wanted, a, 7) for a in ATTRIBUTES}, truth


def test_the_three_folders_hold_square_pictures(painted):
    for image_set, n in zip(IMAGE_SETS, (5, 7, 6), strict=True):
        files = sorted(painted.original(image_set).iterdir())
        assert len(files) == n
        assert all(cv2.imread(str(f)).shape == (48, 48, 3) for f in files)
    assert (painted.path / "original/thispersondoesnotexist.10k/000004.jpg").exists()
    assert (painted.path / "original/ThisPersonDoesNotExist/Female/seed_0007.jpg").exists()


def test_truth_has_a_row_per_original_with_values_in_range(painted):
    truth = pd.read_csv(painted.truth)
    assert list(truth.columns) == ["set", "file", "sex", *ATTRIBUTES]
    by_set = {s.id: painted.original(s) for s in IMAGE_SETS}
    assert all((by_set[row.set] / row.file).exists() for row in truth.itertuples())
    assert len(truth) == 18
    assert truth[list(ATTRIBUTES)].apply(lambda c: c.between(0, 1)).all(axis=None)
    assert (truth[truth.set == "d2_male"].sex == "male").all()


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_label_tables_follow_the_contract(painted, attribute):
    path = painted.hand_labels(attribute)
    table = pd.read_csv(path)
    assert list(table.columns) == ["gender", "img_id", "path", "value"]
    assert b"\r" not in path.read_bytes()
    for row in table.itertuples():
        folder = {"female": "Female", "male": "Male"}[row.gender]
        stem = row.path.split("/")[-1].removesuffix(".jpg")
        assert row.path == f"resized/{row.gender}/{stem}.jpg"
        assert (painted.path / "original/ThisPersonDoesNotExist" / folder / f"{stem}.jpg").exists()
        assert row.img_id == int(stem.removeprefix("seed_")) - 1


def test_the_same_settings_paint_the_same_bytes(painted, tmp_path):
    write_dataset(DataRoot(tmp_path), SMALL)
    assert contents(DataRoot(tmp_path)) == contents(painted)


def test_a_larger_data_set_holds_the_smaller_one(painted, tmp_path):
    root = DataRoot(tmp_path)
    seen = []
    write_dataset(
        root,
        Faces(d1=20, female=7, male=6, size=48, seed=3),
        lambda done, total: seen.append((done, total)),
    )
    larger, smaller = contents(root), contents(painted)
    assert all(larger[name] == data for name, data in smaller.items() if name.endswith(".jpg"))
    assert seen[0] == (0, 33)
    assert seen[-1] == (33, 33)
    assert seen == sorted(seen)


def test_several_processes_paint_the_same_bytes(painted, tmp_path):
    wanted = portraits(SMALL)
    assert sum(
        paint_files(
            [(tmp_path / p.image_set.id / p.file, p.face) for p in wanted], SMALL.size, processes=2
        )
    ) == len(wanted)
    for p in wanted:
        assert (tmp_path / p.image_set.id / p.file).read_bytes() == (
            painted.original(p.image_set) / p.file
        ).read_bytes()


def test_a_second_call_changes_nothing_and_a_missing_picture_is_painted_again(painted):
    before = contents(painted)
    lost = painted.original(IMAGE_SETS[1]) / "seed_0003.jpg"
    lost.unlink()
    times = {p: p.stat().st_mtime_ns for p in painted.path.rglob("*.*") if p.is_file()}
    seen = []
    write_dataset(painted, SMALL, lambda done, total: seen.append(done))
    assert contents(painted) == before
    assert seen == [17, 18]
    assert all(p.stat().st_mtime_ns == t for p, t in times.items())


def test_files_that_a_killed_run_left_incomplete_are_removed(painted):
    folder = painted.original(IMAGE_SETS[0])
    (folder / ".writing-abc.jpg").write_bytes(b"half")
    write_dataset(painted, SMALL)
    assert not (folder / ".writing-abc.jpg").exists()


def test_labels_that_someone_edited_are_kept(tmp_path):
    root = DataRoot(tmp_path)
    mine = "gender,img_id,path,value\nfemale,0,resized/female/seed_0001.jpg,0.4\n"
    root.hand_labels("mouth").parent.mkdir(parents=True)
    root.hand_labels("mouth").write_text(mine)
    write_dataset(root, Faces(d1=1, female=2, male=1, size=32))
    assert root.hand_labels("mouth").read_text() == mine
    assert root.hand_labels("eyes").exists()


def test_another_seed_is_refused_rather_than_mixed_in(painted):
    with pytest.raises(DatasetError, match=r"truth\.csv: painted with another seed"):
        write_dataset(painted, Faces(d1=5, female=7, male=6, size=48, seed=4))


def test_another_size_is_refused_rather_than_mixed_in(painted):
    with pytest.raises(DatasetError, match=r"000000\.jpg: painted 48 pixels wide, not 64"):
        write_dataset(painted, Faces(d1=5, female=7, male=6, size=64, seed=3))


def test_the_first_thousand_of_each_sex_are_labelled_with_a_few_rows_missing(many):
    _, labels, _ = many
    for table in labels.values():
        n = table.gender.value_counts()
        assert 960 < n["female"] < 1000
        assert 470 < n["male"] < 500
        women = table[table.gender == "female"]
        assert women.img_id.is_monotonic_increasing
        assert women.img_id.max() <= 999
        # Plain string order: seed_1000 comes before seed_101.
        assert women.path.is_monotonic_increasing
    assert len({len(t) for t in labels.values()}) > 1


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_labels_are_rounded_as_people_round_and_follow_the_truth(many, attribute):
    _, labels, truth = many
    table = labels[attribute].assign(
        stem=labels[attribute].path.str.extract(r"(seed_\d+)", expand=False)
    )
    both = table.merge(truth, on=["gender", "stem"])
    assert len(both) == len(table)
    steps = {0, 0.5, 1} if attribute == "head" else {0, 0.25, 0.5, 0.75, 1}
    assert set(table.value) == steps
    if attribute in ("eyes", "mouth"):
        assert 0.02 < table.value.isin([0.25, 0.75]).mean() < 0.15
    error = both.value - both[attribute]
    assert np.corrcoef(both.value, both[attribute])[0, 1] > 0.9
    assert error.abs().mean() > 0.03
    assert abs(error.mean()) < 0.03
