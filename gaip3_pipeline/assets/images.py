"""The processed images: cropped and resized originals, and one brightness copy of each."""

from typing import TYPE_CHECKING

import dagster as dg

from gaip3_pipeline.layout import IMAGE_SETS, ImageSet
from gaip3_pipeline.settings import Settings
from gaip3_pipeline.versions import AssetContext, AssetResult, versioned_asset

if TYPE_CHECKING:
    from gaip3_pipeline.imaging.processing import ProcessedSet

GROUP = "images"


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``resized_*`` and ``augmented_*`` of the three sets."""
    return [make(settings, s) for s in IMAGE_SETS for make in (_resized, _augmented)]


def _resized(settings: Settings, image_set: ImageSet) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name=f"resized_{image_set.id}",
        deps=[f"original_{image_set.id}", "dropped_images"],
        version=2,
        reads=lambda s: (s.images,),
        spreads=True,
        group=GROUP,
        kinds={"jpeg", "opencv"},
        description=(
            f"Originals of {image_set.id}, cropped by 9.375 % of the width at each side and"
            " area-resized to 128 × 104 (height × width)."
        ),
    )
    def resized(step: AssetContext) -> AssetResult:
        from gaip3_pipeline.imaging.processing import resize_set

        return _made(
            step,
            resize_set(
                step.root, image_set, step.settings.images, step.progress(), mapper=step.mapper
            ),
        )

    return resized


def _augmented(settings: Settings, image_set: ImageSet) -> dg.AssetsDefinition:
    @versioned_asset(
        settings,
        name=f"augmented_{image_set.id}",
        deps=[f"resized_{image_set.id}"],
        version=1,
        reads=lambda s: (s.images,),
        spreads=True,
        group=GROUP,
        kinds={"jpeg", "opencv"},
        description=(
            f"One brightness copy of each resized image of {image_set.id}; its brightness ratio is"
            " determined by the file's name."
        ),
    )
    def augmented(step: AssetContext) -> AssetResult:
        from gaip3_pipeline.imaging.processing import augment_set

        return _made(
            step,
            augment_set(
                step.root, image_set, step.settings.images, step.progress(), mapper=step.mapper
            ),
        )

    return augmented


def _made(step: AssetContext, result: "ProcessedSet") -> AssetResult:
    from gaip3_pipeline.imaging.sheets import sheet_of_files
    from gaip3_pipeline.tables.image_files import LEFT_OUT
    from gaip3_pipeline.tables.manifests import UNUSABLE, manifest_version

    usable = result.manifest[result.manifest.status != UNUSABLE]
    # unusable ones first, since only the first are shown
    order = (result.manifest.status != UNUSABLE).sort_values(kind="stable").index
    reasons = result.manifest.loc[order, ["path", "reason"]].query("reason != ''")
    is_left_out = reasons.reason.str.startswith(LEFT_OUT)
    noted, left_out = (
        [f"{p}: {r}" for p, r in rows.head(20).itertuples(index=False)]
        for rows in (reasons[~is_left_out], reasons[is_left_out])
    )
    figures = {
        "images": len(usable),
        "unusable": result.unusable,
        "dropped": result.dropped,
        "left_out": result.left_out,
        "done": result.done,
        "reused": result.reused,
        "removed": result.removed,
        "bytes": int(usable["size"].sum()),
        "noted": noted,
        "left_out_files": left_out,
        # entries of the output folder that are not the pipeline's
        "foreign": list(result.foreign[:20]),
        # lines of curation/dropped.csv whose original does not exist
        "dropped_unknown": list(result.unknown[:20]),
    }
    return AssetResult(
        manifest_version(result.manifest),
        figures,
        sheet_of_files([step.root.path / p for p in usable.path], title=step.name),
        tables=[step.root.manifest(step.name)],
    )
