"""The artefacts as Dagster assets: one noun per file, listed in the order of the graph."""

import dagster as dg

from gaip3_pipeline.assets import (
    critic,
    detail,
    evaluation,
    final_dataset,
    gender,
    generator,
    images,
    inputs,
    labels,
    originals,
    photographs,
    report,
    retouch,
    review,
)
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.settings import Settings
from gaip3_pipeline.versions import AssetResult, last_seen

MODULES = (
    originals,
    images,
    photographs,
    labels,
    review,
    gender,
    final_dataset,
    inputs,
    generator,
    detail,
    evaluation,
    critic,
    retouch,
    report,
)


def build(settings: Settings) -> list:
    """Every asset of the pipeline under ``settings``."""
    sources = [*originals.build(), photographs.source()]
    return [*sources, *(asset for module in MODULES[1:] for asset in module.build(settings))]


def observe_sources(
    instance: dg.DagsterInstance, root: DataRoot, verify: bool = False, remember: bool = True
) -> dict[str, AssetResult]:
    """The present content hash of every source: the original folders, the hand-label CSVs and
    the list of dropped pictures.

    Writes nothing to ``instance``, and without ``remember`` nothing at all."""
    folders = {f"original_{s.id}": originals.observe(root, s, verify, remember) for s in IMAGE_SETS}
    hand_labels = {
        name: labels.observe(root, a, last_seen(instance, name))
        for a in ATTRIBUTES
        for name in [f"hand_labels_{a}"]
    }
    dropped = photographs.observe(root, last_seen(instance, "dropped_images"))
    return folders | hand_labels | {"dropped_images": dropped}
