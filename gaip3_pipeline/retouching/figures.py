"""Retouching of a table of samples into a folder, and figures of the result by measures that
retouching did not optimise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.distances import distances_to_real, identity, random_features
from gaip3_pipeline.imaging.contact_sheet import contact_sheet
from gaip3_pipeline.metrics.classification import roc_auc, scores_and_labels
from gaip3_pipeline.metrics.intervals import bootstrap_interval
from gaip3_pipeline.progress import Progress
from gaip3_pipeline.retouching.retoucher import (
    BLIND,
    DIVERGED,
    GOOD,
    NOT_BETTER,
    RETOUCHED,
    Retoucher,
    Tools,
)
from gaip3_pipeline.sampling.draw import AGGREGATE, STANDARD, noise_of_seeds, write_jpegs
from gaip3_pipeline.settings import Retouch
from gaip3_pipeline.tables.files import write_text_atomically
from gaip3_pipeline.training.critic import (
    TrainedCritic,
    critic_logits,
    evidence_by_network,
    same_way,
)
from gaip3_pipeline.training.regressor import Regressor, predict_values

CHUNK = 256  # samples in memory at a time; the most work that is lost when the process is killed
SHOWN = 6  # best changes and worst changes on a sheet; twice as many at random


def retouch_samples(
    tools: Tools,
    table: pd.DataFrame,
    settings: Retouch,
    folder: Path,
    part: Path,
    fingerprint: str,
    *,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Retouch the samples of ``table`` into ``folder``, one JPEG of the same name each. Returns the
    table with the results.

    New columns: ``outcome`` (empty if retouched, else the reason why not), ``guide_before``,
    ``guide_after``, ``evaluations``. Finished rows are written to ``part`` after each 256 samples:
    a call with the same ``fingerprint`` after a kill continues from there."""
    done = _done(part, fingerprint)
    if "prior" not in table:  # samples of a version without detail networks
        table = table.assign(prior=STANDARD, detail=0.0)
    retoucher = Retoucher(tools, settings)
    for start in range(len(done), len(table), CHUNK):
        rows = table[start : start + CHUNK]
        noise = noise_of_seeds(tools.generator.nvae, rows.seed.to_list())
        values, aggregate = (
            rows[list(ATTRIBUTES)].to_numpy(np.float32),
            (rows.prior == AGGREGATE).to_numpy(),
        )
        # The temperature scales latents of the prior when they are decoded, and those of the
        # aggregate posterior before they are moved there.
        scale, temperature = (
            np.where(aggregate, rows.temperature, 1.0),
            np.where(aggregate, 1.0, rows.temperature),
        )
        latents = tools.generator.placed(noise, values, scale.astype(np.float32), aggregate)
        result = retoucher(latents, rows.assign(temperature=temperature))
        write_jpegs(folder, [p.rpartition("/")[2] for p in rows.image_path], result.after)
        new = rows.assign(
            image_path=rows.image_path.str.replace("samples/", "retouched/"), outcome=result.reasons
        )
        new = new.assign(
            guide_before=result.guide_before,
            guide_after=result.guide_after,
            evaluations=result.evaluations,
        )
        done = pd.concat([done, new], ignore_index=True) if len(done) else new
        write_text_atomically(
            part, f"{fingerprint}\n{done.to_csv(index=False, lineterminator=chr(10))}"
        )
        if progress:
            progress(len(done), len(table))
    return done


def _done(part: Path, fingerprint: str) -> pd.DataFrame:
    """The rows that an earlier call with ``fingerprint`` finished."""
    if part.exists():
        with part.open(encoding="utf-8") as f:
            if f.readline().strip() == fingerprint:
                guide = ("guide_before", "guide_after")
                # the numbers that were written, to the last digit, and as short when written again
                return pd.read_csv(
                    f,
                    dtype=dict.fromkeys(guide, np.float32),
                    keep_default_na=False,
                    na_values=dict.fromkeys(guide, ""),
                    float_precision="round_trip",
                )
    return pd.DataFrame()


@dataclass(frozen=True)
class Judge:
    """A critic that only measures, and pictures of its real side that it was not trained on, ``real
    (M, H, W, 3) uint8``."""

    name: str
    critic: TrainedCritic
    real: np.ndarray


def evaluate_retouching(
    table: pd.DataFrame,
    before: np.ndarray,
    after: np.ndarray,
    tools: Tools,
    judges: Sequence[Judge],
    real: np.ndarray,
) -> tuple[dict[str, float | int], dict[str, bytes]]:
    """Figures of :func:`retouch_figures` and of each of ``judges``, and the :func:`change_sheets`
    ordered by the first judge."""
    figures = retouch_figures(table, before, after, tools.regressors, real)
    gains = []
    for judge in judges:
        was, is_now, theirs = (
            critic_logits(judge.critic, images) for images in (before, after, judge.real)
        )
        figures |= judged(judge.name, was, is_now, theirs)
        gains.append(np.nan_to_num(is_now - was))
    return figures, change_sheets(before, after, gains[0], tools.guide)


def judged(
    name: str, was: np.ndarray, is_now: np.ndarray, real: np.ndarray
) -> dict[str, float | int]:
    """Figures of a judge's logits of samples before, ``was (N,)``, and after, ``is_now (N,)``, and
    of pictures of its real side that it was not trained on, ``real (M,)``.

    Their names begin with ``name``. ``…_gain`` is the mean increase of the logit, with a 95 %
    bootstrap interval over samples.
    """
    low, high = bootstrap_interval(np.mean, is_now - was)
    return {
        f"{name}_logit_before": float(was.mean()),
        f"{name}_logit_after": float(is_now.mean()),
        f"{name}_logit_real": float(real.mean()),
        f"{name}_gain": float((is_now - was).mean()),
        f"{name}_gain_low": low,
        f"{name}_gain_high": high,
        f"{name}_auc_before": roc_auc(*scores_and_labels(real, was)),
        f"{name}_auc_after": roc_auc(*scores_and_labels(real, is_now)),
    }


def retouch_figures(
    table: pd.DataFrame,
    before: np.ndarray,
    after: np.ndarray,
    regressors: Sequence[Regressor],
    real: np.ndarray,
) -> dict[str, float | int]:
    """Figures of the samples of ``table`` as :func:`retouch_samples` returns it, ``before`` and
    ``after (N, H, W, 3) uint8``.

    Counts by outcome; distances to ``real (M, H, W, 3) uint8`` and diversity; ``values_mae``, the
    mean absolute error of the five values as predicted by ``regressors``; and ``identity`` and
    ``recognised`` of random features (see :func:`gaip3_pipeline.evaluation.distances.identity`)."""
    outcome = table.outcome
    figures: dict[str, float | int] = {
        "n": len(table),
        "retouched": int((outcome == RETOUCHED).sum()),
        "kept_diverged": int((outcome == DIVERGED).sum()),
        "kept_good": int((outcome == GOOD).sum()),
        "kept_not_better": int((outcome == NOT_BETTER).sum()),
        "kept_blind_guide": int(outcome.str.startswith(BLIND).sum()),
        "evaluations_per_image": float(table.evaluations.mean()),
        "most_evaluations": int(table.evaluations.max()),
        "guide_logit_before": float(table.guide_before.mean()),
        "guide_logit_after": float(table.guide_after.mean()),
        "mean_change_grey_levels": float(np.abs(after.astype(np.float32) - before).mean()),
    }
    figures |= distances_to_real({"before": before, "after": after}, real)
    features = random_features()
    figures |= identity(features(before), features(after))
    asked = {a: table[a].to_numpy() for a in ATTRIBUTES}
    for name, images in (("before", before), ("after", after)):
        errors = [
            np.abs(
                predict_values(r, [images]) - np.stack([asked[a] for a in r.attributes], axis=1)
            ).mean()
            for r in regressors
        ]
        if errors:
            figures[f"values_mae_{name}"] = float(np.mean(errors))
    return figures


def change_sheets(
    before: np.ndarray, after: np.ndarray, gain: np.ndarray, guide: TrainedCritic
) -> dict[str, bytes]:
    """JPEGs of changes: ``at_random``, and the ``best`` and ``worst`` by ``gain (N,)``, the
    increase of a judge's logit.

    For each sample: before, after, their difference (grey: none), and the guide's evidence before,
    less (red) or more (blue) real than usual."""
    order = np.argsort(gain, kind="stable")
    at_random = np.random.default_rng(0).permutation(len(gain))[: 2 * SHOWN]
    chosen = {"at random": at_random, "best": order[::-1][:SHOWN], "worst": order[:SHOWN]}
    parts = "before | after | difference (grey: none) | guide, before: less real red, more blue"
    rows = np.unique(np.concatenate(list(chosen.values())))
    maps = dict(zip(rows.tolist(), guide_maps(guide, before[rows]), strict=True))
    return {
        name.replace(" ", "_"): contact_sheet(
            [
                picture
                for i in rows
                for picture in (before[i], after[i], difference(before[i], after[i]), maps[int(i)])
            ],
            8,
            captions=[text for i in rows for text in (f"{gain[i]:+.2f}", "", "", "")],
            title=f"{name}, by the judge's logit | {parts}",
        )
        for name, rows in chosen.items()
    }


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """``(H, W, 3) uint8``: after minus before, plus 128, clipped."""
    return np.clip(128.0 + after.astype(np.float32) - before, 0, 255).astype(np.uint8)


def guide_maps(guide: TrainedCritic, pictures: np.ndarray) -> list[np.ndarray]:
    """``pictures (N, H, W, 3) uint8`` in grey, tinted red where the guide's evidence is below that
    of real pictures at the same place, blue where it is above."""
    found = (
        evidence_by_network(guide.model, same_way(pictures, guide.height, guide.width)).mean(axis=1)
        - guide.typical_map
    )
    return [_coloured(*pair) for pair in zip(pictures, found, strict=True)]


def _coloured(picture: np.ndarray, found: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    strength = np.clip(
        cv2.resize(found, (width, height), interpolation=cv2.INTER_CUBIC)
        / (np.abs(found).max() + 1e-6),
        -1,
        1,
    )[..., None]
    grey = picture.mean(axis=2, keepdims=True)
    colour = np.where(strength < 0, np.array([220.0, 40.0, 40.0]), np.array([40.0, 80.0, 220.0]))
    share = 0.6 * np.abs(strength)
    return ((1 - share) * grey + share * colour).astype(np.uint8)
