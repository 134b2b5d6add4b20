"""Images at or above the threshold are counted, and a rule that keeps too few advises a lower
one."""

import pandas as pd
import pytest

from gaip3_pipeline.evaluation.selection import selection_figures

THRESHOLD = 0.9999
SCORES = {
    "resized/female/a.jpg": THRESHOLD,
    "augmented/female/a.jpg": 0.99,
    "resized/female/b.jpg": 0.999,
    "resized/female/c.jpg": 0.05,
    "resized/male/m.jpg": 0.99995,
    "resized/male/n.jpg": 0.1,
    "resized/10k-images/x.jpg": 1.0,
}
KEPT = ["resized/female/a.jpg", "resized/10k-images/x.jpg"]


def figures():
    probabilities = pd.DataFrame({"image_path": list(SCORES), "prob_female": list(SCORES.values())})
    manifest = pd.DataFrame(
        {"source": KEPT, "original": ["d2_female/a", "d1/x"], "split": ["train", "test"]}
    )
    return selection_figures(probabilities, manifest, THRESHOLD)


def test_shares_count_originals_at_the_threshold_and_above():
    found = figures()
    assert (found["female_n"], found["male_n"]) == (3, 2)
    assert found["female_recall"] == pytest.approx(1 / 3)
    assert found["male_accepted"] == 1
    low, high = found["female_recall_interval"]
    assert low < 1 / 3 < high
    assert found["kept"] == {"resized/10k-images": 1, "resized/female": 1}
    assert found["share_of_females"] == pytest.approx(2 / 4)


def test_too_few_kept_images_name_the_threshold_that_would_keep_all():
    assert figures()["advice"] == "threshold = 0.05 in [final_dataset] would keep 5"
