"""Near-duplicates are found and kept on one side of every split, defects are found, and dropped
originals are left out and can be brought back."""

import io
import shutil

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from gaip3_pipeline import checks
from gaip3_pipeline.faces.dataset import write_dataset
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.contracts import read_labels
from gaip3_pipeline.tables.duplicates import read_dropped, read_group_table
from gaip3_pipeline.tables.manifests import read_manifest
from gaip3_pipeline.tables.problems import ContractError
from gaip3_pipeline.training_data import originals_table
from gaip3_pipeline.versions import read_figures
from gaip3_pipeline_tests.refreshing import definitions_of, plan_of, refresh_root

D1, FEMALE, MALE = IMAGE_SETS


def encoded(image, quality=60):
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=quality)
    return buffer.getvalue()


def moved(image, by=2):
    array = np.pad(np.asarray(image), ((4, 4), (4, 4), (0, 0)), mode="edge")
    return Image.fromarray(array[4 - by : 4 - by + image.height, 4 + by : 4 + by + image.width])


PLANTED = {  # functions that make another picture of the same photograph from an existing one
    "equal_bytes": lambda path: path.read_bytes(),
    "brightness_copy": lambda path: encoded(Image.open(path).point(lambda v: v * 0.84), 95),
    "encoded_and_moved": lambda path: encoded(moved(Image.open(path))),
    "moved_by_one": lambda path: encoded(moved(Image.open(path), 1)),
    "cut": lambda path: encoded(
        Image.open(path)
        .crop((4, 4, Image.open(path).width - 4, Image.open(path).height - 4))
        .resize(Image.open(path).size)
    ),
    "mirrored": lambda path: encoded(Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "larger": lambda path: encoded(
        Image.open(path).resize((384, 384), Image.Resampling.LANCZOS), 90
    ),
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Painted faces; D1 also has a copy of a portrait of D2 in each way of ``PLANTED``, and a
    blurred picture."""
    root = DataRoot(tmp_path_factory.mktemp("curation") / "root")
    root.path.mkdir()
    root.settings_file.write_text('preset = "tiny"\n[tracking]\nenabled = false\n')
    write_dataset(root, load(root).faces)
    female = sorted(root.original(FEMALE).iterdir())
    for (name, plant), path in zip(PLANTED.items(), female, strict=False):
        (root.original(D1) / f"{name}.jpg").write_bytes(plant(path))
    blurred = Image.open(female[20]).filter(ImageFilter.GaussianBlur(6))
    (root.original(D1) / "blurred.jpg").write_bytes(encoded(blurred, 95))
    refresh_root(root, ["near_duplicates", "image_quality"])
    return root, {
        f"d1/{name}": f"d2_female/{path.stem}" for name, path in zip(PLANTED, female, strict=False)
    }


@pytest.fixture
def root(planted, tmp_path):
    shutil.copytree(planted[0].path, tmp_path / "root")
    return DataRoot(tmp_path / "root")


def test_every_planted_copy_is_found_and_nothing_else(planted):
    root, twin_of = planted
    table = read_group_table(root.near_duplicates)
    found = {
        frozenset(f"{s}/{stem}" for s, stem in zip(g.set, g.stem, strict=True))
        for _, g in table.groupby("group")
    }
    assert found == {frozenset(pair) for pair in twin_of.items()}
    assert "mirrored" in table[table.mirrored == 1].stem.to_list()
    assert table.group.str.startswith("d1/").all()  # the smallest name
    figures = read_figures(root, "near_duplicates")
    assert (figures["groups"], figures["groups_across_sets"], figures["mirrored"]) == (7, 7, 2)
    assert root.picture("near_duplicates").exists()


def test_twins_share_their_bucket_and_the_check_compares_the_pictures(planted):
    root, twin_of = planted
    bucket = originals_table(root).set_index("key").bucket
    assert all(bucket[a] == bucket[b] for a, b in twin_of.items())
    passed, said = checks._no_leakage(root, {})
    assert passed, said


# pictures of equal bytes are grouped by their hash, whatever the table says
@pytest.mark.parametrize("kind", [k for k in PLANTED if k != "equal_bytes"])
def test_a_twin_on_the_other_side_fails_the_check(root, planted, kind):
    twin = planted[1][f"d1/{kind}"]
    table = read_group_table(root.near_duplicates)
    table[table.group != f"d1/{kind}"].to_csv(root.near_duplicates, index=False)
    passed, said = checks._no_leakage(root, {})
    assert not passed
    assert f"d1/{kind} in bucket " in said
    assert f"{twin} in bucket " in said


def test_the_leakage_checks_are_blocking(planted):
    graph = definitions_of(planted[0]).resolve_asset_graph()
    for asset in ("near_duplicates", "final_dataset"):
        key = dg.AssetCheckKey(dg.AssetKey(asset), "no_leakage")
        assert graph.get(key).blocking


def test_a_final_image_and_its_brightness_copy_on_two_sides_fail_the_check(root_copy):
    passed, said = checks._no_final_leakage(root_copy, {})
    assert passed, said
    path = root_copy.manifest("final_dataset")
    manifest = pd.read_parquet(path)
    pair = manifest[manifest.duplicated("original", keep=False)].sort_values("original").head(2)
    manifest.loc[pair.index, "split"] = ["train", "test"]
    manifest.to_parquet(path, index=False)
    passed, said = checks._no_final_leakage(root_copy, {})
    assert not passed
    assert all(name in said for name in pair.path)


def test_a_blurred_picture_is_flagged(planted):
    table = pd.read_csv(planted[0].image_quality, keep_default_na=False)
    assert "blurry" in table.set_index("stem").issues["blurred"]
    assert table.width.max() == 384
    assert read_figures(planted[0], "image_quality")["blurry"] >= 1


def test_dropped_pictures_are_left_out_of_everything_and_can_be_brought_back(root, gaip3):
    refresh_root(root, ["labels_mouth", "augmented_d2_female"])
    gone = sorted(
        p.stem
        for p in root.processed("resized", FEMALE).glob("*.jpg")
        if ("female", p.stem) in labelled(root)
    )[7]
    done = gaip3(
        "drop", f"resized/female/{gone}.jpg", "--reason", "not a face", "--root", root.path
    )
    assert done.exit_code == 0, done.output
    assert f"dropped: original/{FEMALE.original}/{gone}.jpg" in done.output
    assert "resized_d2_female" in {p.name for p in plan_of(root)}
    refresh_root(root, ["labels_mouth", "augmented_d2_female", "near_duplicates"])
    assert not (root.processed("resized", FEMALE) / f"{gone}.jpg").exists()
    assert not (root.processed("augmented", FEMALE) / f"{gone}.jpg").exists()
    row = (
        read_manifest(root.manifest("resized_d2_female"))
        .set_index("path")
        .loc[f"resized/female/{gone}.jpg"]
    )
    assert (row.status, row.reason) == ("unusable", "dropped: not a face")
    figures = read_figures(root, "resized_d2_female")
    assert (figures["dropped"], figures["unusable"]) == (1, 0)
    assert ("female", gone) not in labelled(root)
    assert f"d2_female/{gone}" not in set(originals_table(root).key)

    assert (
        gaip3(
            "drop", "--undo", root.original(FEMALE) / f"{gone}.jpg", "--root", root.path
        ).exit_code
        == 0
    )
    assert read_dropped(root.dropped) == {}
    refresh_root(root, ["labels_mouth", "augmented_d2_female"])
    assert (root.processed("augmented", FEMALE) / f"{gone}.jpg").exists()
    assert ("female", gone) in labelled(root)


def labelled(root):
    table = read_labels(root.checked_labels("mouth")).table
    return set(zip(table.gender, table.stem, strict=True))


def test_of_duplicates_the_labelled_one_is_kept(root, gaip3):
    done = gaip3("drop", "--duplicates", "--root", root.path)
    assert done.exit_code == 0, done.output
    assert set(read_dropped(root.dropped)) == {("d1", name) for name in PLANTED}
    refresh_root(root, ["near_duplicates"])
    assert read_figures(root, "near_duplicates")["groups"] == 0
    assert "no group has more than one" in gaip3("drop", "--duplicates", "--root", root.path).output


def test_if_the_best_of_a_group_was_dropped_before_the_next_best_is_kept(root, planted, gaip3):
    best = planted[1]["d1/larger"].rpartition("/")[2]
    assert (
        gaip3(
            "drop", f"resized/female/{best}.jpg", "--reason", "no portrait", "--root", root.path
        ).exit_code
        == 0
    )
    done = gaip3("drop", "--duplicates", "--reason", "twice", "--root", root.path)
    assert done.exit_code == 0, done.output
    wanted = {("d1", name): "twice" for name in PLANTED if name != "larger"} | {
        ("d2_female", best): "no portrait"
    }
    assert read_dropped(root.dropped) == wanted


def test_without_a_table_of_duplicates_one_line_says_how_to_make_it(root, gaip3):
    root.near_duplicates.unlink()
    done = gaip3("drop", "--duplicates", "--root", root.path)
    assert done.exit_code == 1
    [line] = done.output.splitlines()
    assert "gaip3 refresh --select near_duplicates" in line


def test_a_picture_is_named_as_seen_from_here_also_through_a_link_or_with_backslashes(
    root, gaip3, tmp_path, monkeypatch
):
    one, two, three, four = sorted(p.stem for p in root.original(MALE).iterdir())[:4]
    (root.path / "original").rename(tmp_path / "another disk")
    (root.path / "original").symlink_to(tmp_path / "another disk")
    monkeypatch.chdir(root.original(MALE))
    here = root.original(MALE)
    names = [
        f"{one}.jpg",
        here / f"{two}.jpg",
        f"augmented\\male\\{three}.jpg",
        f"./resized/male/{four}.jpg",
    ]
    for name, stem in zip(names[1:], [two, three, four], strict=True):
        done = gaip3("drop", name, "--root", root.path)
        assert done.exit_code == 0, done.output
        assert ("d2_male", stem) in read_dropped(root.dropped)
    monkeypatch.chdir(root.path)
    assert gaip3("drop", f"original/{MALE.original}/{names[0]}", "--root", root.path).exit_code == 0
    assert set(read_dropped(root.dropped)) == {
        ("d2_male", stem) for stem in (one, two, three, four)
    }


def test_a_dropped_picture_whose_original_is_gone_is_named_and_can_be_taken_off_the_list(
    root, gaip3
):
    gone = sorted(p.stem for p in root.original(MALE).iterdir())[3]
    assert gaip3("drop", f"resized/male/{gone}.jpg", "--root", root.path).exit_code == 0
    (root.original(MALE) / f"{gone}.jpg").unlink()
    refresh_root(root, ["resized_d2_male"])
    figures = read_figures(root, "resized_d2_male")
    assert (figures["dropped"], figures["dropped_unknown"]) == (0, [gone])
    done = gaip3("drop", "--undo", f"resized/male/{gone}.jpg", "--root", root.path)
    assert done.exit_code == 0, done.output
    assert read_dropped(root.dropped) == {}


def test_a_set_that_was_dropped_completely_is_not_reported_as_an_empty_folder(root, gaip3):
    everyone = [f"original/{MALE.original}/{p.name}" for p in root.original(MALE).iterdir()]
    assert gaip3("drop", *everyone, "--root", root.path).exit_code == 0
    done = gaip3("refresh", "--select", "labels_mouth", "--root", root.path)
    assert done.exit_code == 1
    assert f"no usable image, {len(everyone)} dropped" in done.output
    assert "gaip3 drop --undo" in done.output
    assert list(root.processed("resized", MALE).glob("*.jpg")) == []
    assert gaip3("drop", "--undo", *everyone, "--root", root.path).exit_code == 0
    assert gaip3("refresh", "--select", "labels_mouth", "--root", root.path).exit_code == 0
    assert len(list(root.processed("resized", MALE).glob("*.jpg"))) == len(everyone)


def test_a_drop_makes_only_its_own_set_stale(root, gaip3):
    refresh_root(root, [f"augmented_{s.id}" for s in IMAGE_SETS])
    gone = sorted(p.stem for p in root.original(MALE).iterdir())[0]
    assert gaip3("drop", f"resized/male/{gone}.jpg", "--root", root.path).exit_code == 0
    made = set(refresh_root(root, [f"augmented_{s.id}" for s in IMAGE_SETS]).materialized)
    assert made == {*(f"resized_{s.id}" for s in IMAGE_SETS), "augmented_d2_male"}
    copies = read_manifest(root.manifest("augmented_d2_male")).set_index("path")
    assert copies.reason[f"augmented/male/{gone}.jpg"] == "dropped: by hand"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"path\nresized/female/a.jpg\n", r"dropped\.csv, line 1: column reason is missing"),
        (
            b"path,reason\nresized/female/\xff.jpg,x\n",
            r"dropped\.csv: not UTF-8 \(byte \d+\); save it as",
        ),
        (b"path,reason\nresized/female/a.jpg\n", r"dropped\.csv, line 2: 1 fields, 2 expected"),
    ],
)
def test_a_list_that_cannot_be_read_stops_with_file_line_and_remedy(root, gaip3, content, said):
    root.dropped.write_bytes(content)
    with pytest.raises(ContractError, match=said):
        read_dropped(root.dropped)
    done = gaip3("refresh", "--select", "resized_d1", "--root", root.path)
    assert done.exit_code == 1
    assert "dropped.csv" in done.output
    assert "Traceback" not in done.output


def test_an_unknown_picture_is_an_error_of_one_line_and_drops_nothing(root, gaip3):
    done = gaip3("drop", "resized/female/nobody.jpg", "--root", root.path)
    assert done.exit_code == 1
    assert "resized/female/nobody.jpg: no original of that name" in done.output
    assert not root.dropped.exists()


def test_a_broken_list_names_file_line_and_remedy(root):
    root.dropped.write_text("path,reason\nresized/female/a.jpg,blurred\nelsewhere/b.jpg,\n")
    with pytest.raises(
        ContractError,
        match=(
            r"dropped\.csv, line 3, column path: 'elsewhere/b.jpg' lies in none .* or remove the"
            r" line"
        ),
    ):
        read_dropped(root.dropped)
