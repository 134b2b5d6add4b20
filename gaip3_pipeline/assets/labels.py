"""Hand labels: five CSVs that people write, and a checked copy of each, which trainings read."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from gaip3_pipeline.attributes import ATTRIBUTES, MEANINGS
from gaip3_pipeline.layout import SET_OF_SEX, DataRoot
from gaip3_pipeline.settings import Settings
from gaip3_pipeline.tables.hashing import file_version, rows_version
from gaip3_pipeline.versions import (
    AssetContext,
    AssetResult,
    Seen,
    observe_table,
    observed_source,
    versioned_asset,
)

if TYPE_CHECKING:
    from gaip3_pipeline.tables.contracts import Labels

GROUP = "labels"
LABELLED_SETS = tuple(SET_OF_SEX.values())


def observe(root: DataRoot, attribute: str, seen: Seen | None = None) -> AssetResult:
    """The content hash of a hand-label CSV: its labels, without ``img_id`` and further columns,
    which nothing uses; ``missing`` if there is no file."""

    def content(path: Path) -> str:
        from gaip3_pipeline.tables.contracts import read_labels

        labels = read_labels(path).table
        return rows_version(labels[["gender", "stem", "value"]].to_numpy().tolist())

    return observe_table(root, root.hand_labels(attribute), content, seen)


def read(root: DataRoot, attribute: str) -> "Labels":
    """The hand labels of existing images. Raises :class:`ContractError` for a malformed CSV."""
    from gaip3_pipeline.tables.contracts import read_labels, stem
    from gaip3_pipeline.tables.manifests import usable_paths

    known = {
        s.sex: {stem(p) for p in usable_paths(root.manifest(f"resized_{s.id}"))}
        for s in LABELLED_SETS
        if s.sex
    }
    return read_labels(root.hand_labels(attribute), known)


def build(settings: Settings) -> list:
    """``hand_labels_*`` (observed) and ``labels_*`` (checked) of the five attributes."""
    return [make for a in ATTRIBUTES for make in (_source(a), _checked(settings, a))]


def _source(attribute: str) -> Any:
    what = f"The hand labels of {attribute} ({MEANINGS[attribute]}), a CSV that people edit."
    return observed_source(
        f"hand_labels_{attribute}",
        GROUP,
        "csv",
        what,
        lambda root, seen: observe(root, attribute, seen),
    )


def _checked(settings: Settings, attribute: str) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name=f"labels_{attribute}",
        deps=[f"hand_labels_{attribute}", *(f"resized_{s.id}" for s in LABELLED_SETS)],
        version=1,
        group=GROUP,
        kinds={"csv"},
        description=(
            f"The hand labels of {attribute} ({MEANINGS[attribute]}) after the check of their"
            " format: one row for each existing image with a label."
        ),
    )
    def labels(step: AssetContext) -> AssetResult:
        from gaip3_pipeline.evaluation.charts import histogram
        from gaip3_pipeline.tables.contracts import write_labels

        found = read(step.root, attribute)
        path = step.root.checked_labels(attribute)
        write_labels(path, found.table)
        figures = {
            "rows": len(found.table),
            "left_out": len(found.left_out),
            "female": int((found.table.gender == "female").sum()),
            "male": int((found.table.gender == "male").sum()),
            "values": {
                f"{v:g}": int(n) for v, n in found.table.value.value_counts().sort_index().items()
            },
            "left_out_rows": found.left_out[:20],
        }
        return AssetResult(
            file_version(path),
            figures,
            histogram(found.table.value, f"{attribute}: {MEANINGS[attribute]}"),
            tables=[path],
        )

    return labels
