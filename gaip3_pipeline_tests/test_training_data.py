"""What trainings read: large pictures, made of the originals as the final ones are; features of the
regions, which the gender model computed of the same pictures."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from gaip3_pipeline.features.extractor import extract, load_extractor
from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.hashing import arrays_version, digest, weights_version
from gaip3_pipeline.tables.manifests import UNUSABLE, read_manifest
from gaip3_pipeline.training_data import final_images, regions_of_final


def test_large_images_show_what_the_final_ones_show_and_are_made_once(root_copy):
    settings = load(root_copy)
    large = dataclasses.replace(
        settings, nvae=dataclasses.replace(settings.nvae, height=256, width=208)
    )
    small = final_images(root_copy, settings)
    big = final_images(root_copy, large)
    assert big.images.shape == (len(small.images), 256, 208, 3)
    np.testing.assert_array_equal(big.values, small.values)
    difference = np.abs(shrink(big.images, 128, 104).astype(int) - small.images)
    assert difference.mean(axis=(1, 2, 3)).max() < 4  # due to JPEG and enlarged originals of 128²
    copies = small.table.source.str.startswith("augmented/").to_numpy()
    assert 0 < copies.sum() < len(copies)

    packed = root_copy.packed_large(256, 208)
    written = packed.stat().st_mtime_ns
    final_images(root_copy, large)
    assert packed.stat().st_mtime_ns == written
    packed.with_suffix(".json").write_text("of other pictures")
    final_images(root_copy, large)
    assert packed.stat().st_mtime_ns > written


@pytest.fixture
def regions(root_copy):
    """``regions(version)``: what is kept for the final images, by the extractor of this version."""
    folder, labelled = root_copy.feature_extractor, root_copy.features_labelled
    made = digest([weights_version(folder), arrays_version(labelled)])
    final = pd.read_parquet(root_copy.manifest("final_dataset"))
    return lambda version=made, final=final: regions_of_final(root_copy, version, final)


def test_regions_that_the_gender_model_used_are_those_of_the_final_images(root_copy, regions):
    pictures = np.load(root_copy.packed_final, mmap_mode="r")
    kept, features = regions(), np.load(root_copy.features_final)
    for some in (slice(0, 40), slice(40, len(pictures))):
        found = kept(some)
        np.testing.assert_array_equal(found, features[:, some, : found.shape[2]])
    whole = extract(load_extractor(root_copy.feature_extractor), [pictures])
    # features of other batches may differ in the last bit of float16
    np.testing.assert_allclose(features.astype(float), whole, rtol=2e-3, atol=2e-3)


def test_regions_of_another_extractor_other_pictures_or_another_size_are_not_used(
    root_copy, regions
):
    assert regions("of another extractor") is None
    final = pd.read_parquet(root_copy.manifest("final_dataset"))
    assert regions(final=final) is not None
    assert regions(final=final.assign(sha256=final.sha256.iloc[::-1].to_numpy())) is None
    assert regions(final=final.assign(source="augmented/of-before.jpg")) is None
    path = root_copy.manifest("augmented_d1")
    manifest = read_manifest(path)
    whole = path.read_bytes()
    manifest[manifest.status != UNUSABLE].iloc[1:].to_parquet(path, index=False)
    assert regions() is None
    path.write_bytes(whole)
    assert regions() is not None
    np.save(root_copy.packed_final, np.load(root_copy.packed_final)[:, ::2, ::2])
    assert regions() is None


def test_regions_are_missed_if_one_of_their_files_is(root_copy, regions):
    root_copy.features_regions.unlink()
    assert regions() is None
