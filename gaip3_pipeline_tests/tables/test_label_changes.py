"""The differences between two tables of labels."""

import pandas as pd

from gaip3_pipeline.tables.contracts import read_labels, write_labels
from gaip3_pipeline.tables.label_changes import changes_csv, changes_since, label_changes


def table(*rows):
    return pd.DataFrame(
        [(g, "0", s, v) for g, s, v in rows], columns=["gender", "img_id", "stem", "value"]
    )


BEFORE = table(("female", "a", 0.0), ("female", "b", 0.5), ("male", "a", 1.0))
AFTER = table(("male", "a", 1.0), ("female", "b", 0.75), ("female", "c", 0.25))


def test_added_removed_and_changed_rows_are_found_by_key_whatever_their_order():
    changes = label_changes(BEFORE, AFTER)
    assert (
        changes_csv(changes)
        == "gender,stem,from,to\nfemale,a,0.0,\nfemale,b,0.5,0.75\nfemale,c,,0.25\n"
    )
    assert label_changes(AFTER, AFTER.iloc[::-1]).empty


def test_against_no_file_every_row_is_new(tmp_path):
    assert len(changes_since(tmp_path / "none.csv", AFTER)) == 3
    write_labels(tmp_path / "checked.csv", BEFORE)
    assert changes_since(tmp_path / "checked.csv", AFTER).equals(
        label_changes(read_labels(tmp_path / "checked.csv").table, AFTER)
    )
