"""The differences between two tables of labels, by key."""

from pathlib import Path

import pandas as pd

from gaip3_pipeline.tables.contracts import read_labels

KEY = ["gender", "stem"]


def label_changes(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Rows that were added, removed or changed: ``gender, stem, from, to``, sorted by key; NaN
    where there is no label.

    Both tables have a row per key with ``gender, stem, value``."""
    both = before[[*KEY, "value"]].merge(
        after[[*KEY, "value"]], on=KEY, how="outer", suffixes=("_before", "_after")
    )
    same = (both.value_before == both.value_after) | (
        both.value_before.isna() & both.value_after.isna()
    )
    changed = both[~same].sort_values(KEY, ignore_index=True)
    return changed.rename(columns={"value_before": "from", "value_after": "to"})


def changes_since(path: Path, after: pd.DataFrame) -> pd.DataFrame:
    """The changes from the checked labels in the file ``path`` to ``after``; if the file is
    missing, every row counts as added."""
    before = read_labels(path).table if path.exists() else after.iloc[:0]
    return label_changes(before, after)


def changes_csv(changes: pd.DataFrame) -> str:
    """:func:`label_changes` as a CSV; a missing value is empty."""
    return changes.to_csv(index=False, lineterminator="\n")
