"""Figures of the final dataset: what the rule P(female) ≥ threshold keeps and leaves out."""

from typing import Any

import pandas as pd

from gaip3_pipeline.layout import MALE_FOLDERS
from gaip3_pipeline.metrics.intervals import wilson_interval

ENOUGH = 500  # images that a small generator can be trained on


def selection_figures(
    probabilities: pd.DataFrame, manifest: pd.DataFrame, threshold: float
) -> dict[str, Any]:
    """Images kept, their shares, counts by folder and split; on labelled originals, recall and
    false accepts.

    ``share_of_females`` is the share of the images with P(female) > 0.5 in no male folder.
    Scores of labelled images are out of fold, so ``female_recall`` and ``male_accepted`` are
    held out; intervals are Wilson's at 95 %. If fewer than 500 images are kept, ``advice`` gives
    the threshold that would keep 500, or all if there are fewer."""
    folder = probabilities.image_path.str.split("/").str[1]
    female = (probabilities.prob_female > 0.5) & ~folder.isin(MALE_FOLDERS)
    originals_only = probabilities[probabilities.image_path.str.startswith("resized/")]
    passes = originals_only.prob_female >= threshold
    of = originals_only.image_path.str.split("/").str[1]
    females, males = passes[of == "female"], passes[of == "male"]
    candidates = probabilities.prob_female[~folder.isin(MALE_FOLDERS)].sort_values(ascending=False)
    lower = float(candidates.iloc[min(ENOUGH, len(candidates)) - 1]) if len(candidates) else 0.0
    kept = manifest.source.str.split("/").str[:2].str.join("/").value_counts().sort_index()
    advice = f"threshold = {lower:.6g} in [final_dataset] would keep {min(ENOUGH, len(candidates))}"
    return {
        "files": len(manifest),
        "share_of_all": len(manifest) / max(len(probabilities), 1),
        "share_of_females": len(manifest) / max(int(female.sum()), 1),
        "different_originals": int(manifest.original.nunique()),
        "kept": {k: int(v) for k, v in kept.items()},
        "female_recall": float(females.mean()) if len(females) else 0.0,
        "female_recall_interval": list(wilson_interval(int(females.sum()), len(females))),
        "female_n": len(females),
        "male_accepted": int(males.sum()),
        "male_accept_interval": list(wilson_interval(int(males.sum()), len(males))),
        "male_n": len(males),
        **({"advice": advice} if len(manifest) < ENOUGH else {}),
        "splits": {k: int(v) for k, v in manifest.split.value_counts().items()},
    }
