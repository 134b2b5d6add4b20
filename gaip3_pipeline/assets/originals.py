"""The original photographs: three folders that the user fills, observed and never written."""

from typing import Any

from gaip3_pipeline.layout import IMAGE_SETS, DataRoot, ImageSet
from gaip3_pipeline.versions import AssetResult, observed_source

GROUP = "originals"
DESCRIPTIONS = {
    "d1": "Original portraits without labels (D1), as their Kaggle archive unpacks.",
    "d2_female": "Original portraits of women (D2-F), as their Kaggle archive unpacks.",
    "d2_male": "Original portraits of men (D2-M), as their Kaggle archive unpacks.",
}


def observe(
    root: DataRoot, image_set: ImageSet, verify: bool = False, remember: bool = True
) -> AssetResult:
    """The content hash of an original folder; files are hashed again only if size, time or inode
    changed (or ``verify``). With ``remember`` new hashes are written to the cache."""
    from gaip3_pipeline.tables.hashing import folder_version

    found = folder_version(root.original(image_set), root.hash_cache, verify, remember)
    return AssetResult(
        found.hash,
        {
            "files": found.files,
            "bytes": found.bytes,
            "other_files": found.others,
            "folder": root.relative(root.original(image_set)),
        },
    )


def build() -> list:
    """One observable source for each set."""
    return [_source(s) for s in IMAGE_SETS]


def _source(image_set: ImageSet) -> Any:
    return observed_source(
        f"original_{image_set.id}",
        GROUP,
        "jpeg",
        DESCRIPTIONS[image_set.id],
        lambda root, seen: observe(root, image_set),
    )
