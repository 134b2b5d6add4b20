"""Curation of the photographs: near-duplicates, defects, and the list of dropped originals."""

from pathlib import Path
from typing import Any

import dagster as dg

from gaip3_pipeline.assets import images, originals
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.settings import Settings
from gaip3_pipeline.tables.hashing import MISSING, file_version, rows_version
from gaip3_pipeline.versions import (
    AssetContext,
    AssetResult,
    Seen,
    observe_table,
    observed_source,
    versioned_asset,
)

GROUP = "curation"
RESIZED = [f"resized_{s.id}" for s in IMAGE_SETS]
SHOWN = 40  # groups on a sheet
SHOWN_OF_KIND = 10  # pictures of each kind of defect


def observe(root: DataRoot, seen: Seen | None = None) -> AssetResult:
    """The content hash of the list of dropped pictures: sets, stems and reasons; ``missing`` if it
    names none, with a file or without."""

    def content(path: Path) -> str:
        from gaip3_pipeline.tables.duplicates import read_dropped

        rows = [(*key, reason) for key, reason in read_dropped(path).items()]
        return rows_version(rows) if rows else MISSING

    return observe_table(root, root.dropped, content, seen)


def source() -> Any:
    """``dropped_images``, written by the user and observed."""
    what = "The originals that the user dropped (gaip3 drop). All assets leave them out."
    return observed_source("dropped_images", originals.GROUP, "csv", what, observe)


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``near_duplicates`` and ``image_quality``."""

    @versioned_asset(
        settings,
        name="near_duplicates",
        deps=RESIZED,
        version=2,
        group=images.GROUP,
        kinds={"csv", "opencv"},
        description=(
            "Groups of pictures of the same photograph in all three sets, also if re-encoded,"
            " resized, brightened, shifted or mirrored."
        ),
    )
    def near_duplicates(step: AssetContext) -> AssetResult:
        import numpy as np

        from gaip3_pipeline.imaging.duplicates import (
            COARSE,
            ReadGreys,
            coarse_sums,
            near_duplicates,
            perceptual_hash,
            to_grey,
        )
        from gaip3_pipeline.imaging.mapping import in_order
        from gaip3_pipeline.tables import duplicates
        from gaip3_pipeline.tables.splits import moved
        from gaip3_pipeline.training_data import originals_with, resized_batches, resized_picture

        before = duplicates.read_group_table(step.root.near_duplicates)
        originals = originals_with(step.root, [])
        progress = step.progress(total=len(originals))
        hashes = np.empty((len(originals), 2, 32), np.uint8)
        sums, done = np.empty((len(originals), *COARSE), np.uint16), 0
        for batch in resized_batches(step.root, originals):
            rows = slice(done, done := done + len(batch))
            hashes[rows] = list(in_order(perceptual_hash, batch))
            sums[rows] = coarse_sums(np.stack([to_grey(image) for image in batch]))
            progress.update(done)
        greys = ReadGreys(len(originals), resized_picture(step.root, originals))
        pairs = near_duplicates(hashes, sums, greys)
        table = duplicates.group_table(
            originals, [(p.first, p.second, p.correlation, p.bits, p.mirrored) for p in pairs]
        )
        went = moved(
            originals_with(step.root, duplicates.twins(before)),
            originals_with(step.root, duplicates.twins(table)),
        )
        duplicates.write_group_table(step.root.near_duplicates, table)
        sizes = table.groupby("group").set
        figures = {
            "originals": len(originals),
            "groups": len(sizes),
            "images_in_groups": len(table),
            "groups_across_sets": int((sizes.nunique() > 1).sum()),
            "mirrored": int(table.mirrored.sum()),
            "moved": len(went),
            "moved_originals": went[:20],
        }
        path = step.root.near_duplicates
        return AssetResult(
            file_version(path), figures, _groups_sheet(step.root, table), tables=[path]
        )

    @versioned_asset(
        settings,
        name="image_quality",
        deps=RESIZED,
        version=2,
        group=GROUP,
        kinds={"csv", "opencv"},
        description=(
            "Measures of blur, darkness, glare, flatness, greyness and unusual sizes of the"
            " originals. The user decides which to drop."
        ),
    )
    def image_quality(step: AssetContext) -> AssetResult:
        import pandas as pd

        from gaip3_pipeline.imaging.decode import original_size
        from gaip3_pipeline.imaging.mapping import in_order
        from gaip3_pipeline.imaging.quality import ISSUES, measure, with_issues
        from gaip3_pipeline.tables.files import write_text_atomically
        from gaip3_pipeline.training_data import originals_with, resized_batches

        originals = originals_with(step.root, [])
        progress = step.progress(total=len(originals))
        measures = []
        for batch in resized_batches(step.root, originals):
            measures += list(in_order(measure, batch))
            progress.update(len(measures))
        sizes = pd.DataFrame(
            list(in_order(lambda p: original_size(step.root.path / p), originals.path)),
            columns=["width", "height"],
        )
        found = with_issues(
            pd.concat(
                [originals[["path", "set", "stem"]], pd.DataFrame(measures).round(3), sizes], axis=1
            )
        )
        path = step.root.image_quality
        write_text_atomically(path, found.to_csv(index=False, lineterminator="\n"))
        counts = {
            name: int(found.issues.str.split().map(lambda issues, name=name: name in issues).sum())
            for name in ISSUES
        }
        figures = {
            "originals": len(found),
            "with_issues": int((found.issues != "").sum()),
            **counts,
        }
        sheet = _quality_sheet(step.root, found)
        return AssetResult(file_version(path), figures, sheet, tables=[path])

    return [near_duplicates, image_quality]


def _groups_sheet(root: DataRoot, table: Any) -> bytes | None:
    """A JPEG of the pictures of the first groups, each with its set and the correlation with its
    twin; None without groups."""
    groups = table.group.drop_duplicates().head(SHOWN)
    shown = table[table.group.isin(groups)].head(2 * SHOWN)
    captions = [
        f"{r.set} {r.correlation:.3f}{' mirrored' if r.mirrored else ''}"
        for r in shown.itertuples()
    ]
    return _sheet(root, shown, captions, "the same photograph: set, correlation with its twin")


def _quality_sheet(root: DataRoot, table: Any) -> bytes | None:
    """A JPEG of the worst pictures of each defect, flagged or not, which shows where the limits
    are."""
    from gaip3_pipeline.imaging.quality import worst

    shown = worst(table, SHOWN_OF_KIND)
    captions = [caption for _, caption in shown]
    return _sheet(
        root,
        table.iloc[[row for row, _ in shown]],
        captions,
        "the worst of each defect; in brackets: not flagged",
    )


def _sheet(root: DataRoot, table: Any, captions: list[str], title: str) -> bytes | None:
    from gaip3_pipeline.imaging.contact_sheet import contact_sheet
    from gaip3_pipeline.training_data import resized_images

    if not len(table):
        return None
    return contact_sheet(list(resized_images(root, table)), 10, captions=captions, title=title)
