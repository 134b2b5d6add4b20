"""The data that trainings read, collected from manifests, checked labels and tables.

This module defines no asset; the assets of all models call its functions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import IMAGE_SETS, KINDS, SET_OF_SEX, DataRoot, made_of
from gaip3_pipeline.settings import Nvae, Settings, section_hash
from gaip3_pipeline.tables import splits
from gaip3_pipeline.tables.contracts import (
    read_all_input_values,
    read_input_uncertainty,
    read_labels,
)
from gaip3_pipeline.tables.duplicates import read_group_table, twins
from gaip3_pipeline.tables.files import write_bytes_atomically, write_text_atomically, writing
from gaip3_pipeline.tables.hashing import digest
from gaip3_pipeline.tables.label_changes import changes_since
from gaip3_pipeline.tables.manifests import UNUSABLE, manifest_version, read_manifest
from gaip3_pipeline.tables.names import stem_of
from gaip3_pipeline.training.run import Examples
from gaip3_pipeline.versions import read_figures

if TYPE_CHECKING:
    import keras

# least R² on held-out pictures at which a regressor can predict a value well enough to teach it
KNOWN = 0.25
FOLDER_OF_SET = {s.id: s.folder for s in IMAGE_SETS}


def originals_table(root: DataRoot) -> pd.DataFrame:
    """Every usable original with its split (see :func:`gaip3_pipeline.tables.splits.originals`);
    near-duplicates share it."""
    return originals_with(root, twins(read_group_table(root.near_duplicates)))


def originals_with(root: DataRoot, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Every usable original with its split; the two keys of each of ``pairs`` are twins, which
    share it."""
    return splits.originals(
        {s.id: read_manifest(root.manifest(f"resized_{s.id}")) for s in IMAGE_SETS}, pairs
    )


def resized_hashes(root: DataRoot) -> pd.Series:
    """The content hash of each usable original's resized picture, by key."""
    usable = {
        s.id: manifest[manifest.status != UNUSABLE]
        for s in IMAGE_SETS
        for manifest in [read_manifest(root.manifest(f"resized_{s.id}"))]
    }
    rows = {
        f"{s}/{Path(p).stem}": sha
        for s, m in usable.items()
        for p, sha in zip(m.path, m.sha256, strict=True)
    }
    return pd.Series(rows, dtype=str)


def resized_batches(
    root: DataRoot, table: pd.DataFrame, height: int = 128, width: int = 104, kind: str = "resized"
) -> Iterator[np.ndarray]:
    """Batches of ``(B, height, width, 3) uint8`` of the images of ``kind`` that ``table``
    (columns ``set``, ``stem``) names."""
    from gaip3_pipeline.imaging.packing import load_images

    return load_images(_Places(root.path / kind, table), height, width)


def resized_picture(
    root: DataRoot,
    table: pd.DataFrame,
    height: int = 128,
    width: int = 104,
    kind: str = "resized",
) -> Callable[[int], np.ndarray]:
    """A function that reads the image of :func:`resized_batches` of a row of ``table``, by its
    number."""
    from gaip3_pipeline.imaging.packing import load_image

    places = _Places(root.path / kind, table)
    return lambda row: load_image(places[row], height, width)


class _Places(Sequence[Path]):
    """The files of the images below ``folder`` that ``table`` names; a million paths at once would
    take a gigabyte."""

    def __init__(self, folder: Path, table: pd.DataFrame) -> None:
        self._folder, self._stems = folder, table.stem
        self._folders = table["set"].map(FOLDER_OF_SET)

    def __len__(self) -> int:
        return len(self._stems)

    def __getitem__(self, row: Any) -> Any:
        return self._folder / str(self._folders.iat[row]) / f"{self._stems.iat[row]}.jpg"


def resized_images(
    root: DataRoot, table: pd.DataFrame, height: int = 128, width: int = 104
) -> np.ndarray:
    """All of :func:`resized_batches`, ``(N, height, width, 3) uint8``."""
    return np.concatenate(
        [np.zeros((0, height, width, 3), np.uint8), *resized_batches(root, table, height, width)]
    )


def processed_table(root: DataRoot) -> pd.DataFrame:
    """Every processed image: ``path`` relative to the root, ``sha256``, and the ``key`` of its
    original, resized sets first."""
    parts = []
    for kind in KINDS:
        for image_set in IMAGE_SETS:
            manifest = read_manifest(root.manifest(f"{kind}_{image_set.id}"))
            usable = manifest.loc[manifest.status != UNUSABLE, ["path", "sha256"]]
            keys = [f"{image_set.id}/{PurePosixPath(p).stem}" for p in usable.path]
            parts.append(usable.assign(key=keys))
    return pd.concat(parts, ignore_index=True)


@contextmanager
def keeping_regions(
    root: DataRoot, extractor: str, processed: pd.DataFrame
) -> Iterator[np.ndarray]:
    """An array ``(2, N, D) float16`` for the block to fill with the features of the regions of each
    row of ``processed`` (:func:`processed_table`), by the extractor of this version. They are kept
    for :func:`regions_of_final`."""
    from gaip3_pipeline.features.groups import trunk_groups
    from gaip3_pipeline.imaging.packing import mapped

    source = made_of(root.features_regions)
    source.unlink(missing_ok=True)
    shape = (2, len(processed), int(trunk_groups()[-1]))
    with mapped(root.features_regions, np.float16, shape) as regions:
        yield regions
    write_text_atomically(source, _regions_version(extractor, processed))


def regions_of_final(
    root: DataRoot, extractor: str, final: pd.DataFrame
) -> Callable[[slice], np.ndarray] | None:
    """A function that reads the features of the regions, ``(2, n, D) float16``, of some rows of the
    manifest ``final``, by the extractor of this version.

    None if they are not kept of these images, or if the images have another size than the features
    need: they are reduced once more after they were packed, so the features differ in bits."""
    from gaip3_pipeline.features.patches import HEIGHT, WIDTH

    kept, source = root.features_regions, made_of(root.features_regions)
    if not (kept.exists() and source.exists()):
        return None
    if np.load(root.packed_final, mmap_mode="r").shape[1:3] != (HEIGHT, WIDTH):
        return None
    processed = processed_table(root)
    rows = pd.Index(processed.path).get_indexer(final.source)
    of_before = (processed.sha256.to_numpy()[rows] != final.sha256.to_numpy()).any()
    if of_before or source.read_text() != _regions_version(extractor, processed):
        return None
    regions = np.load(kept, mmap_mode="r")
    return lambda some: regions[:, rows[some]]


def _regions_version(extractor: str, processed: pd.DataFrame) -> str:
    return digest([extractor, *processed.path, *processed.sha256])


def folds_of_keys(originals: pd.DataFrame, folds: int) -> dict[str, int]:
    """For each original's key, the fold of the gender model that did not train on it: the fold of
    its bucket if it or a twin is labelled, else ``NO_FOLD``."""
    from gaip3_pipeline.training.gender import NO_FOLD, folds_of

    labelled = set(originals.group[originals.set.isin([s.id for s in SET_OF_SEX.values()])])
    fold = np.where(
        originals.group.isin(labelled), folds_of(originals.bucket.to_numpy(), folds), NO_FOLD
    )
    return dict(zip(originals.key, fold.tolist(), strict=True))


def labelled_table(root: DataRoot, attribute: str) -> pd.DataFrame:
    """Labelled originals with ``value`` and split."""
    labels = read_labels(root.checked_labels(attribute)).table
    labels["set"] = labels.gender.map({sex: s.id for sex, s in SET_OF_SEX.items()})
    return labels[["set", "stem", "gender", "value"]].merge(
        originals_table(root), on=["set", "stem"], validate="one_to_one"
    )


def save_labelled_features(
    root: DataRoot, keys: Sequence[str] | pd.Series, features: np.ndarray, groups: np.ndarray
) -> None:
    """Write ``features (2, 2N, D) float16`` of the N pictures ``keys``, followed by their
    brightness copies; the second row holds the mirror images. ``groups``: where each group of
    features begins and ends."""
    with writing(root.features_labelled) as temporary, temporary.open("wb") as file:
        np.savez(file, keys=np.array(list(keys), dtype=np.str_), features=features, groups=groups)


def labelled_features(
    root: DataRoot, keys: Sequence[str] | pd.Series
) -> tuple[np.ndarray, np.ndarray]:
    """``(2, 2n, D) float16`` features of the n pictures ``keys``, followed by their brightness
    copies, as :func:`save_labelled_features` wrote them; and ``groups``.

    Raises ``KeyError`` for a picture without features.
    """
    with np.load(root.features_labelled) as kept:
        place = {key: i for i, key in enumerate(kept["keys"].tolist())}
        rows = np.array([place[key] for key in keys], int)
        return kept["features"][:, np.concatenate([rows, len(place) + rows])], kept["groups"]


def label_changes_since(
    root: DataRoot, model: Path, attributes: Sequence[str] = ATTRIBUTES
) -> pd.DataFrame:
    """The labels that changed since the model in the folder ``model`` was trained: columns
    ``attribute, gender, stem, from, to``."""
    parts = []
    for a in attributes:
        changes = changes_since(
            root.labels_seen(model, a), read_labels(root.checked_labels(a)).table
        )
        changes.insert(0, "attribute", a)
        parts.append(changes)
    return pd.concat(parts, ignore_index=True)


def keep_labels_seen(root: DataRoot, model: Path, attributes: Sequence[str] = ATTRIBUTES) -> None:
    """Copy the checked labels into the folder ``model``, whose model was trained with them."""
    for a in attributes:
        write_bytes_atomically(root.labels_seen(model, a), root.checked_labels(a).read_bytes())


@dataclass(frozen=True)
class FinalImages:
    """The generator's data: ``images (N, H, W, 3) uint8`` (memory-mapped), ``values (N, 5)
    float32``, the manifest's rows.

    H and W are those of the final images, or of the generator where it is larger.
    """

    images: np.ndarray
    values: np.ndarray
    table: pd.DataFrame

    @property
    def examples(self) -> "Examples":
        """Pictures, values and split, as trainings take them."""
        return Examples(self.images, self.values, self.table.split.to_numpy())


def final_images(
    root: DataRoot, settings: Settings, progress: Callable[[int, int], None] | None = None
) -> FinalImages:
    """The packed final images with their input values, in the order of the manifest.

    If the generator is larger than the final images, larger images are made from the originals once
    and kept in a packed file of their own."""
    table = pd.read_parquet(root.manifest("final_dataset"))
    values = read_all_input_values(root).reindex(table.path).to_numpy(np.float32)
    if np.isnan(values).any():
        raise ValueError(
            "the input values do not cover the final dataset; materialise input_values_* after"
            " final_dataset"
        )
    small = (
        settings.nvae.height <= settings.images.height
        and settings.nvae.width <= settings.images.width
    )
    packed = root.packed_final if small else _packed_large(root, settings, table, progress)
    return FinalImages(np.load(packed, mmap_mode="r"), values, table)


def final_values(root: DataRoot) -> pd.DataFrame:
    """Every final image: ``source``, ``original``, and of each attribute its value
    ``{attribute}`` and ``uncertainty_{attribute}``."""
    table = pd.read_parquet(root.manifest("final_dataset"))[["path", "source", "original"]]
    table = table.join(read_all_input_values(root), on="path")
    for attribute in ATTRIBUTES:
        uncertainty = (
            read_input_uncertainty(root.input_uncertainty(attribute))
            .set_index("image_path")
            .uncertainty
        )
        table[f"uncertainty_{attribute}"] = table.path.map(uncertainty)
    if table.isna().any(axis=None):
        raise ValueError(
            "the input values do not cover the final dataset; materialise input_values_* after"
            " final_dataset"
        )
    return table.drop(columns="path")


def frozen_features(root: DataRoot) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """``attributes``: features of the evaluators and the gender models, which were trained on real
    pictures alone; for distances.

    The control regressor is left out, because the generator was trained against it.
    """
    from gaip3_pipeline.evaluation.distances import trained_features
    from gaip3_pipeline.training.gender import load_gender_models
    from gaip3_pipeline.training.regressor import load_network

    evaluators = [load_network(root.evaluator(a)) for a in ATTRIBUTES]
    return {
        "attributes": trained_features([*evaluators, *load_gender_models(root.gender_model).models])
    }


def known_values(root: DataRoot) -> dict[str, bool]:
    """For each value, whether control regressor and evaluator can predict it: both have an R² of at
    least ``KNOWN`` on held-out pictures.

    A regressor cannot teach a value that it cannot predict: with a control regressor of eyes with
    R² .13, the generator drew broken faces."""
    control = read_figures(root, "control_regressor")
    return {
        a: control[f"r2_{a}"] >= KNOWN and read_figures(root, f"evaluator_{a}")["r2"] >= KNOWN
        for a in ATTRIBUTES
    }


def generator_guides(root: DataRoot, section: Nvae) -> "list[keras.Model]":
    """The regressors that a training of the generator needs for its control."""
    from gaip3_pipeline.training.regressor import load_network

    return [load_network(root.control_regressor)] if section.control else []


def _packed_large(
    root: DataRoot,
    settings: Settings,
    table: pd.DataFrame,
    progress: Callable[[int, int], None] | None,
) -> Path:
    from gaip3_pipeline.imaging.decode import UnusableImage
    from gaip3_pipeline.imaging.packing import load_image, pack
    from gaip3_pipeline.imaging.transform import brighten, brightness_ratio

    packed = root.packed_large(settings.nvae.height, settings.nvae.width)
    source = made_of(packed)
    version = section_hash(settings.images) + manifest_version(table)
    if packed.exists() and source.exists() and source.read_text() == version:
        return packed
    manifests = pd.concat([read_manifest(root.manifest(f"resized_{s.id}")) for s in IMAGE_SETS])
    original_of = dict(zip(manifests.path, manifests.source, strict=True))
    resized = ["/".join(["resized", *PurePosixPath(p).parts[1:]]) for p in table.source]
    rows = [
        _Row(root.path / original_of[p], source.startswith("augmented/"))
        for p, source in zip(resized, table.source, strict=True)
    ]

    def load(row: _Row, height: int, width: int) -> np.ndarray:
        images = settings.images
        try:
            image = load_image(row.original, height, width, images.crop, images.max_pixels)
        except UnusableImage as e:  # damage in scans that resizing does not need
            raise UnusableImage(f"{e}; drop it with gaip3 drop, then refresh") from e
        return brighten(image, brightness_ratio(stem_of(row.original))) if row.is_copy else image

    source.unlink(missing_ok=True)
    pack(rows, packed, settings.nvae.height, settings.nvae.width, progress, load)
    write_text_atomically(source, version)
    return packed


@dataclass(frozen=True)
class _Row:
    original: Path
    is_copy: bool
