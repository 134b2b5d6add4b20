"""Pictures that show a level of an attribute, beside the label page's buttons: those that users
chose, else the labelled picture that fits best."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager

from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.tables.files import write_text_atomically
from gaip3_pipeline.tables.label_store import Key, LabelStore
from gaip3_pipeline.tables.problems import ContractError
from gaip3_pipeline.web.reviews import read_review

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Examples:
    """The examples of one root's levels. Safe to use from several threads and processes."""

    def __init__(self, root: DataRoot, store: LabelStore) -> None:
        self._root, self._store = root, store

    def chosen(self, attribute: str) -> dict[float, Key]:
        """The pictures that users chose and whose label still is the level."""
        found = self._read().get(attribute, {})
        values = self._values(attribute) if found else {}
        return {level: key for level, key in found.items() if values.get(key) == level}

    def of(self, attribute: str, level: float) -> Key | None:
        """The chosen picture, or the labelled one that shows ``level`` best: the one whose
        out-of-fold prediction is nearest to it, and whose head is turned little; without a review
        the first one, without labels None."""
        own = self.chosen(attribute).get(level)
        if own:
            return own
        there = [k for k, v in self._values(attribute).items() if v == level]
        off = self._predicted(attribute, level)
        turned = self._predicted("head", 0.5) if attribute != "head" else {}
        return min(there, key=lambda k: off.get(k, 1.0) + 0.5 * turned.get(k, 0.0), default=None)

    def choose(self, attribute: str, key: Key, chosen: bool) -> None:
        """Make a picture the example of the level that it is labelled with, or no longer. Raises
        ``ValueError`` if its label is none of :data:`LEVELS`."""
        level = self._values(attribute).get(key)
        if level not in LEVELS:
            raise ValueError(f"{key[1]} is labelled with none of the levels, so it shows none")
        with self._locked():
            content = self._read()
            of_attribute = content.setdefault(attribute, {})
            if chosen:
                of_attribute[level] = key
            elif of_attribute.get(level) == key:
                del of_attribute[level]
            written = {
                name: {f"{at:g}": list(picture) for at, picture in examples.items()}
                for name, examples in content.items()
            }
            text = json.dumps(written, indent=1, ensure_ascii=False) + "\n"
            self._root.labels.mkdir(parents=True, exist_ok=True)
            write_text_atomically(self._root.label_examples, text)

    def _predicted(self, attribute: str, value: float) -> dict[Key, float]:
        """How far the review's predictions are from ``value``."""
        review = read_review(self._root, attribute)
        keys = zip(review.gender, review.stem, strict=True)
        return dict(zip(keys, (review.predicted - value).abs().tolist(), strict=True))

    def _values(self, attribute: str) -> dict[Key, float]:
        """The labels of pictures that exist; none if the CSV breaks the contract."""
        try:
            values = self._store.values(attribute)
        except ContractError:
            return {}
        return {k: v for k, v in values.items() if k[1] in self._store.images.get(k[0], {})}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the root's labels, which excludes other threads and processes."""
        path = self._root.labels_lock
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self) -> dict[str, dict[float, Key]]:
        """The file: for each attribute the picture of each level that has one."""
        path = self._root.label_examples
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return {
                attribute: {
                    float(level): (gender, stem) for level, (gender, stem) in examples.items()
                }
                for attribute, examples in content.items()
            }
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as e:
            raise ContractError(
                f"{path} is not {{attribute: {{level: [gender, stem]}}}} ({e}): mend or delete it"
            ) from e
