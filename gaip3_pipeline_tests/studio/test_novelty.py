"""How far a photograph is from the training pictures, judged by the held-out ones."""

from pathlib import Path

import numpy as np
import pandas as pd

from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.studio.novelty import FAR, Novelty, load_novelty


def test_pictures_like_the_held_out_ones_are_rarely_far_and_others_are() -> None:
    generator = np.random.default_rng(0)
    kinds = generator.normal(0, 5, (8, 100))  # what pictures of the data are mixtures of

    def some(n: int, shift: float = 0.0) -> np.ndarray:
        noise = generator.normal(shift, 1, (n, 100))
        return (generator.normal(0, 1, (n, 8)) @ kinds + noise).astype(np.float16)

    novelty = Novelty(some(800), some(400))
    like = novelty.farther_than(some(2000))
    assert abs(like.mean() - 0.5) < 0.05
    assert (like >= FAR).mean() < 0.03
    np.testing.assert_array_equal(novelty.farther_than(some(50, shift=2.0)), 1.0)


def test_a_root_without_fitting_features_says_nothing(tmp_path: Path) -> None:
    root = DataRoot(tmp_path)
    assert load_novelty(root, 4) is None
    for path in (root.features_final, root.manifest("final_dataset")):
        path.parent.mkdir(parents=True, exist_ok=True)
    split = np.where(np.arange(90) % 3 == 0, "test", "train")
    pd.DataFrame({"split": split}).to_parquet(root.manifest("final_dataset"))
    packed = np.arange(2 * 90 * 4, dtype=np.float16).reshape(2, 90, 4)
    for pictures, features, there in ((90, 4, True), (90, 5, False), (89, 4, False)):
        np.save(root.features_final, packed[:, :pictures])
        assert (load_novelty(root, features) is not None) == there
    np.save(root.features_final, packed)
    found = load_novelty(root, 4)
    assert found
    np.testing.assert_array_equal(found.held_out, packed[0, split == "test"])
    pd.DataFrame({"split": ["train"] * 90}).to_parquet(root.manifest("final_dataset"))
    assert load_novelty(root, 4) is None
