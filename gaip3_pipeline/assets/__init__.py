"""The artefacts as Dagster assets: one noun per file, listed in the order of the graph."""

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
from gaip3_pipeline.versions import AssetResult

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
    root: DataRoot, verify: bool = False, remember: bool = True
) -> dict[str, AssetResult]:
    """The present content hash of every source: the original folders, the hand-label CSVs and
    the list of dropped pictures. Without ``remember`` nothing is written."""
    folders = {f"original_{s.id}": originals.observe(root, s, verify, remember) for s in IMAGE_SETS}
    return (
        folders
        | {f"hand_labels_{a}": labels.observe(root, a) for a in ATTRIBUTES}
        | {"dropped_images": photographs.observe(root)}
    )
