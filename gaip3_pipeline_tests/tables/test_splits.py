"""Splits do not change when data is added."""

import hashlib

import numpy as np
import pandas as pd

from gaip3_pipeline.tables import splits


def manifest(set_folder, stems, hashes):
    paths = [f"resized/{set_folder}/{s}.jpg" for s in stems]
    return pd.DataFrame(
        {"path": paths, "status": "ok", "reason": "", "source": paths, "source_sha256": hashes}
    )


def test_the_bucket_is_the_hash_of_the_groups_smallest_name():
    expected = int(hashlib.sha256(b"split-v1d1/000001").hexdigest(), 16) % 100
    assert splits.bucket("d1/000001") == expected


def test_twins_share_a_group_however_they_are_connected():
    found = splits.groups(["a", "b", "c", "d"], [("c", "b"), ("b", "a")])
    assert found == {"a": "a", "b": "a", "c": "a", "d": "d"}


def test_originals_of_equal_bytes_share_a_split_across_sets():
    table = splits.originals(
        {
            "d1": manifest(
                "10k-images", [f"{i:03d}" for i in range(50)], [f"same{i}" for i in range(50)]
            ),
            "d2_female": manifest(
                "female", [f"f{i}" for i in range(50)], [f"same{i}" for i in range(50)]
            ),
        }
    )
    for _, twins in table.groupby("group"):
        assert len(twins) == 2
        assert twins.split.nunique() == 1


def test_near_duplicates_share_a_split_and_originals_that_move_are_listed():
    stems = [f"{i:03d}" for i in range(40)]
    sets = {
        "d1": manifest("10k-images", stems, [f"a{s}" for s in stems]),
        "d2_male": manifest("male", stems, [f"b{s}" for s in stems]),
    }
    alone = splits.originals(sets)
    together = splits.originals(sets, [("d2_male/003", "d1/017"), ("d2_male/004", "d1/gone")])
    pair = together[together.key.isin(["d1/017", "d2_male/003"])]
    assert pair.group.tolist() == ["d1/017", "d1/017"]
    assert pair.bucket.nunique() == 1
    [line] = splits.moved(alone, together)
    assert line.startswith("d2_male/003: ")
    assert together.key.tolist() == alone.key.tolist()


def test_adding_images_changes_no_bucket():
    few = splits.originals({"d1": manifest("10k-images", ["a", "b", "c"], ["1", "2", "3"])})
    many = splits.originals(
        {"d1": manifest("10k-images", ["a", "b", "c", "d", "0"], ["1", "2", "3", "4", "5"])}
    )
    merged = few.merge(many, on="key")
    assert (merged.bucket_x == merged.bucket_y).all()


def test_unusable_originals_are_left_out():
    table = manifest("10k-images", ["a", "b"], ["1", "2"])
    table.loc[1, "status"] = "unusable"
    assert splits.originals({"d1": table}).key.tolist() == ["d1/a"]


def test_shares_are_a_tenth_a_tenth_and_the_rest():
    buckets = np.array([splits.bucket(f"d1/{i}") for i in range(5000)])
    share = pd.Series(splits.split(buckets)).value_counts(normalize=True)
    assert abs(share["test"] - 0.1) < 0.02
    assert abs(share["validation"] - 0.1) < 0.02


def test_evaluators_see_the_same_half_of_the_groups_and_never_the_test_split():
    buckets = np.arange(100)
    half = splits.evaluators_half(buckets)
    assert set(buckets[half == "test"]) == set(range(10))
    assert (half == "train").sum() == (half == "unused").sum() == 45
    np.testing.assert_array_equal(splits.split(buckets) == "test", half == "test")
