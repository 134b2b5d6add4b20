"""The review of the hand labels: labels that are probably wrong, and images to label next."""

import json
from typing import Any

import dagster as dg

from gaip3_pipeline.assets.labels import GROUP, LABELLED_SETS
from gaip3_pipeline.attributes import ATTRIBUTES, MIRRORED
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.settings import Settings
from gaip3_pipeline.tables.hashing import digest, file_version
from gaip3_pipeline.versions import AssetContext, AssetResult, versioned_asset

VERSION = 3
LIDS = "eyes"  # the value that can be estimated from the opening of the lids
# pictures on an attribute's sheet, and of each attribute on the sheet of all
SHOWN, SHOWN_OF_ALL = 40, 8


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``label_review``."""

    @versioned_asset(
        settings,
        name="label_review",
        deps=[
            *(f"labels_{a}" for a in ATTRIBUTES),
            "feature_extractor",
            *(f"resized_{s.id}" for s in IMAGE_SETS),
            "near_duplicates",
        ],
        version=VERSION,
        group=GROUP,
        kinds={"csv", "numpy"},
        description=(
            "Labels that are probably wrong, by comparison with out-of-fold predictions, and images"
            " to label next."
        ),
    )
    def label_review(step: AssetContext) -> AssetResult:
        from gaip3_pipeline.tables.contracts import read_label_review
        from gaip3_pipeline.training_data import originals_table

        images = originals_table(step.root)
        images = images[images.set.isin([s.id for s in LABELLED_SETS])].reset_index(drop=True)
        images["gender"] = images.set.map({s.id: s.sex for s in LABELLED_SETS})
        content = digest(
            [str(VERSION), step.inputs["feature_extractor"], images.to_csv(index=False)]
        )
        progress = step.progress(total=len(ATTRIBUTES))
        remade = []
        for done, attribute in enumerate(ATTRIBUTES, 1):
            if _remake(step.root, attribute, images, content, step.inputs["feature_extractor"]):
                remade.append(attribute)
            progress.update(done)
        tables = {a: read_label_review(step.root.label_review(a)) for a in ATTRIBUTES}
        figures: dict[str, Any] = {"remade": remade}
        for attribute, table in tables.items():
            figures |= {f"{k}_{attribute}": v for k, v in _figures(table).items()}
        sheets = {a: _sheet(step.root, {a: t}, SHOWN) for a, t in tables.items()}
        version = digest(file_version(step.root.label_review(a)) for a in ATTRIBUTES)
        return AssetResult(
            version,
            figures,
            _sheet(step.root, tables, SHOWN_OF_ALL),
            more={a: s for a, s in sheets.items() if s},
            tables=[step.root.label_review(a) for a in ATTRIBUTES],
        )

    return [label_review]


def _remake(root: DataRoot, attribute: str, images: Any, content: str, extractor: str) -> bool:
    """Write the review of ``attribute`` unless it is already that of these images and labels."""
    import numpy as np

    from gaip3_pipeline.evaluation.review import half_closed, review_table
    from gaip3_pipeline.tables.contracts import write_label_review
    from gaip3_pipeline.tables.files import write_text_atomically
    from gaip3_pipeline.training_data import labelled_features, labelled_table

    path, source = root.label_review(attribute), root.label_review_source(attribute)
    made_of = digest([content, file_version(root.checked_labels(attribute))])
    if source.exists() and json.loads(source.read_text()) == {
        "made_of": made_of,
        "table": file_version(path),
    }:
        return False
    values = labelled_table(root, attribute).set_index("key").value
    features = labelled_features(root, images.key)[0][:, : len(images)].astype(np.float32)
    labelled = images.key.isin(values.index).to_numpy()
    first = None
    if attribute == LIDS and not labelled.all():
        first = half_closed(
            _lid_openings(root, images[~labelled], extractor).reindex(images.key).to_numpy(),
            labelled,
        )
    table = review_table(
        images.assign(value=images.key.map(values)), features, attribute in MIRRORED, first
    )
    write_label_review(path, table)
    write_text_atomically(
        source, json.dumps({"made_of": made_of, "table": file_version(path)}) + "\n"
    )
    return True


def _lid_openings(root: DataRoot, images: Any, extractor: str) -> Any:
    """The opening of the lids of ``images``, a series by key. Measurements are cached in
    ``root.lid_openings``.

    A picture is measured again if it changed, or if ``extractor`` did, the version of the networks
    that find landmarks."""
    import pandas as pd

    from gaip3_pipeline.features.landmarks import find_parts
    from gaip3_pipeline.features.part_measures import lid_opening
    from gaip3_pipeline.tables.files import write_text_atomically
    from gaip3_pipeline.training_data import resized_batches, resized_hashes

    path = root.lid_openings
    kept = (
        pd.read_csv(path, dtype={"key": str, "content": str})
        if path.exists()
        else pd.DataFrame(columns=["key", "content", "opening"])
    )
    content = resized_hashes(root)[images.key].map(lambda sha: digest([extractor, sha]))
    known = kept[kept.content == kept.key.map(content)].set_index("key").opening
    new = images[~images.key.isin(known.index)]
    if len(new):
        found = [lid_opening(find_parts(batch).points) for batch in resized_batches(root, new)]
        measured = pd.Series(
            [float(o) for part in found for o in part], index=new.key, name="opening"
        )
        known = pd.concat([known, measured]) if len(known) else measured
        table = known.rename_axis("key").reset_index()
        table = table.assign(content=table.key.map(content))[["key", "content", "opening"]]
        write_text_atomically(path, table.to_csv(index=False, lineterminator="\n"))
    return known


def _figures(table: Any) -> dict[str, float | int]:
    from gaip3_pipeline.evaluation.review import look_wrong
    from gaip3_pipeline.metrics.regression import regression_figures

    labelled = table[table.value.notna()]
    return {
        "r2": regression_figures(labelled.predicted.to_numpy(), labelled.value.to_numpy())["r2"],
        "n": len(labelled),
        "look_wrong": int(look_wrong(labelled.suspicion.to_numpy()).sum()),
        "expected_wrong": float(labelled.suspicion.sum()),
        "unlabelled": len(table) - len(labelled),
    }


def _sheet(root: DataRoot, tables: dict[str, Any], most: int) -> bytes | None:
    """A JPEG of the ``most`` suspicious labels of each table, with their values and predictions;
    None if there are no labels."""
    import numpy as np
    from PIL import Image

    from gaip3_pipeline.imaging.contact_sheet import contact_sheet

    shown = [
        (
            root.resized_picture(row.gender, row.stem),
            f"{attribute} {_short(row.value)} | {_short(row.predicted)}",
        )
        for attribute, table in tables.items()
        for row in (
            table.sort_values("suspicion", ascending=False, kind="stable").head(most).itertuples()
        )
        if row.suspicion >= 0
    ]
    if not shown:
        return None
    images = [np.asarray(Image.open(path).convert("RGB")) for path, _ in shown]
    return contact_sheet(
        images,
        8,
        captions=[text for _, text in shown],
        title="most suspicious labels: value | predicted",
    )


def _short(value: float) -> str:
    """``0.931`` as ``.93``, since captions are narrow."""
    return f"{round(value, 2):g}".removeprefix("0") or "0"
