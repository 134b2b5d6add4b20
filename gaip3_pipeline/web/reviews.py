"""What the label page reads of the pipeline's tables: the review of labels, and pictures that are
similar."""

import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.features.part_measures import PARTS
from gaip3_pipeline.layout import SET_OF_SEX, DataRoot
from gaip3_pipeline.tables.contracts import REVIEW_COLUMNS, read_label_review
from gaip3_pipeline.tables.label_store import Key

MOST_SIMILAR = 300
# the parts of the face whose features tell which pictures are similar in an attribute; for an
# attribute without an entry, all of them
PARTS_OF = {
    "eyes": ("eyes",),
    "mouth": ("mouth", "lips"),
    "hair_color": ("hair", "hair_colours"),
    "background": ("background", "background_colours"),
    "head": ("turn",),
}


def read_review(root: DataRoot, attribute: str) -> pd.DataFrame:
    """The table that ``label_review`` wrote for an attribute (``REVIEW_COLUMNS``); without rows if
    there is none yet. It is read again when it has changed; callers do not change it."""
    path = root.label_review(attribute)
    try:
        return _read(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return pd.DataFrame(
            {c: pd.Series(dtype=str if c in ("gender", "stem") else float) for c in REVIEW_COLUMNS}
        )


@lru_cache(maxsize=len(ATTRIBUTES))
def _read(path: Path, _version: int) -> pd.DataFrame:
    return read_label_review(path)


class Similar:
    """Pictures with similar features, of one root's labelled sets. Safe to use from several
    threads."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._version = 0
        self._rows: dict[Key, int] = {}
        self._features = np.zeros((0, 0), np.float32)  # of the parts of the face
        self._limits = np.zeros(1, int)

    def near(self, attribute: str, key: Key) -> list[Key]:
        """At most :data:`MOST_SIMILAR` pictures, the most similar first, which is the picture
        itself. Raises ``ValueError`` for a picture without features."""
        with self._lock:
            self._load()
            keys, features = list(self._rows), self._features
            row = self._rows.get(key)
        if row is None:
            raise ValueError(
                f"similar pictures of {key[1]} are not known yet: a refresh measures its features"
            )
        parts = [PARTS.index(p) for p in PARTS_OF.get(attribute, PARTS)]
        columns = np.concatenate([np.arange(self._limits[p], self._limits[p + 1]) for p in parts])
        apart = np.square(features[:, columns] - features[row, columns]).sum(axis=1)
        apart[row] = -1.0
        return [keys[i] for i in np.argsort(apart, kind="stable")[:MOST_SIMILAR]]

    def _load(self) -> None:
        """Read the features if they have changed."""
        try:
            version = self._root.features_labelled.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if version == self._version:
            return
        with np.load(self._root.features_labelled) as kept:
            limits = kept["groups"][-len(PARTS) - 1 :]
            names = [name.split("/", 1) for name in kept["keys"].tolist()]
            parts = kept["features"][0, : len(names), limits[0] : limits[-1]]
        sexes = {s.id: sex for sex, s in SET_OF_SEX.items()}
        self._rows = {(sexes[s], stem): i for i, (s, stem) in enumerate(names)}
        self._features, self._limits = parts.astype(np.float32), limits - limits[0]
        self._version = version
