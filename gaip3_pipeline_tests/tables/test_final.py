"""The 99.99 % rule and its hard links."""

import os

import pandas as pd
import pytest

from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.tables.files import foreign_entries
from gaip3_pipeline.tables.final import link_final, select_final
from gaip3_pipeline.tables.names import longest_final_name


def originals(*keys):
    return pd.DataFrame({"key": keys, "group": keys, "bucket": range(len(keys)), "split": "train"})


def probabilities(**rows):
    return pd.DataFrame({"image_path": list(rows), "prob_female": list(rows.values())})


def test_the_rule_selects_confident_females_outside_the_male_folders():
    table = pd.DataFrame(
        {
            "image_path": [
                "resized/female/a.jpg",
                "augmented/female/a.jpg",
                "resized/male/m.jpg",
                "resized/10k-images/x.jpg",
            ],
            "prob_female": [0.9999, 0.99989999, 1.0, 0.99995],
        }
    )
    chosen = select_final(table, originals("d2_female/a", "d2_male/m", "d1/x"), 0.9999)
    assert chosen.path.tolist() == ["final/resized_10k-images_x.jpg", "final/resized_female_a.jpg"]
    assert chosen.original.tolist() == ["d1/x", "d2_female/a"]


def make_root(tmp_path) -> DataRoot:
    root = DataRoot(tmp_path)
    for name in ("a", "b"):
        path = root.path / "resized" / "female" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    return root


def chosen_of(*names):
    table = pd.DataFrame(
        {"image_path": [f"resized/female/{n}.jpg" for n in names], "prob_female": 1.0}
    )
    return select_final(table, originals("d2_female/a", "d2_female/b"), 0.9999)


def test_final_files_are_hard_links_with_the_bytes_of_their_source(tmp_path):
    root = make_root(tmp_path)
    manifest = link_final(root, chosen_of("a", "b"))
    assert sorted(os.listdir(root.final)) == ["resized_female_a.jpg", "resized_female_b.jpg"]
    assert os.path.samefile(root.final / "resized_female_a.jpg", root.path / "resized/female/a.jpg")
    assert manifest["size"].tolist() == [100, 100]


def test_a_picture_that_the_rule_no_longer_selects_is_removed_and_its_source_stays(tmp_path):
    root = make_root(tmp_path)
    link_final(root, chosen_of("a", "b"))
    link_final(root, chosen_of("b"))
    assert os.listdir(root.final) == ["resized_female_b.jpg"]
    assert (root.path / "resized/female/a.jpg").read_bytes() == b"a" * 100


def test_a_source_written_again_replaces_its_link(tmp_path):
    root = make_root(tmp_path)
    before = link_final(root, chosen_of("a"))
    fresh = root.path / "resized/female/new"
    fresh.write_bytes(b"c" * 100)
    os.replace(fresh, root.path / "resized/female/a.jpg")
    after = link_final(root, chosen_of("a"))
    assert (root.final / "resized_female_a.jpg").read_bytes() == b"c" * 100
    assert before.sha256[0] != after.sha256[0]


def test_files_are_copied_where_hard_links_are_refused(tmp_path, monkeypatch):
    def refuse(*names, **options):
        raise PermissionError("this file system has no hard links")

    monkeypatch.setattr(os, "link", refuse)
    root = make_root(tmp_path)
    link_final(root, chosen_of("a"))
    assert (root.final / "resized_female_a.jpg").read_bytes() == b"a" * 100
    assert sorted(os.listdir(root.final)) == ["resized_female_a.jpg"]


def test_entries_of_others_in_final_stay_and_leftovers_of_a_killed_run_go(tmp_path):
    root = make_root(tmp_path)
    link_final(root, chosen_of("a", "b"))
    (root.final / "a folder").mkdir()
    (root.final / "augmented_male_x.jpg").mkdir()
    (root.final / "resized_female_link.jpg").symlink_to(root.path / "resized/female/a.jpg")
    for name in (".DS_Store", "notes.txt", "mine.jpg", ".linking-picture", ".writing-1.jpg"):
        (root.final / name).touch()
    link_final(root, chosen_of("a"))
    assert foreign_entries(root.final, ["resized_female_a.jpg"]) == [
        ".DS_Store",
        "a folder",
        "augmented_male_x.jpg",
        "mine.jpg",
        "notes.txt",
        "resized_female_link.jpg",
    ]


def test_a_folder_in_the_place_of_a_final_picture_is_named(tmp_path):
    root = make_root(tmp_path)
    (root.final / "resized_female_a.jpg").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"female_a\.jpg is a folder.*: move it away"):
        link_final(root, chosen_of("a"))
    assert os.listdir(root.final) == ["resized_female_a.jpg"]


def test_the_longest_name_that_the_file_system_takes_is_linked(tmp_path):
    root, stem = make_root(tmp_path), "c" * 234
    (root.path / f"resized/female/{stem}.jpg").write_bytes(b"c")
    table = pd.DataFrame({"image_path": [f"resized/female/{stem}.jpg"], "prob_female": 1.0})
    name = longest_final_name(IMAGE_SETS[1], stem)
    assert name == f"augmented_female_{stem}.jpg"
    assert len(name) == 255
    link_final(root, select_final(table, originals(f"d2_female/{stem}"), 0.9999))
    assert os.listdir(root.final) == [f"resized_female_{stem}.jpg"]
