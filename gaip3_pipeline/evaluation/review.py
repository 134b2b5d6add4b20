"""Labels that are probably wrong, and images to label next. Pure functions of arrays and tables."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gaip3_pipeline.tables.contracts import REVIEW_COLUMNS
from gaip3_pipeline.training.label_regression import NOISE, KernelRegression, cross_fit

# Prior probability that a label is wrong. Fitted to the residuals instead, it took the tails of
# correct labels for wrong ones: 130 expected where 40 of 792 were planted.
SHARE_WRONG = 0.02
NEIGHBOURHOOD = 0.1  # standard deviation of the kernel over predicted values
LEAST_DEVIATION = 0.01  # in units of the value
MOST_NEXT = 200  # images ranked to be labelled next
# The landmark network finds closed eyes too far open: of 786 photographs, eyes labelled .5 have .85
# of the median opening, and closed eyes .66. Of the photographs below .7 of it, 30 % are labelled
# at most .5, of all photographs 5 %; ranking by the opening has an AUC of .82.
# share of the median opening below which images are ranked first, and how many of them
HALF_CLOSED, MOST_HALF_CLOSED = 0.75, 100
# candidates to label next, and images whose variance they are to reduce: bounded, so that the
# choice takes seconds for any number of images
MOST_CANDIDATES, MOST_WANTED = 2_000, 2_000
DECIMALS = 4


@dataclass(frozen=True)
class Review:
    """``suspicion (N,)``: the probability that a label is wrong, NaN without a label. ``deviation
    (N,)``: the standard deviation of a correct label from the prediction, in units of the value."""

    suspicion: np.ndarray
    deviation: np.ndarray

    @property
    def expected_wrong(self) -> float:
        """The expected number of wrong labels."""
        return float(np.nansum(self.suspicion))


def review_table(
    images: pd.DataFrame, features: np.ndarray, mirrored: bool, first: np.ndarray | None = None
) -> pd.DataFrame:
    """The review of one attribute: the columns ``REVIEW_COLUMNS``, a row for each image, sorted by
    gender and stem.

    ``images``: columns ``gender``, ``stem``, ``value`` (NaN: not labelled) and ``bucket`` (of
    the split, equal for twins); ``features (2, N, D)`` of its rows and their mirror images;
    ``mirrored``: a mirror image has 1 - value. In the result, ``predicted`` (0..1) is out of fold
    where there is a label, ``uncertainty`` the standard deviation of a label from it, ``suspicion``
    the probability that the label is wrong, and ``next`` the rank 1, 2, 3, … of the images to label
    next; the rows ``first`` have the first ranks. Empty cells are NaN, in ``next`` <NA>."""
    values = images.value.to_numpy(float)
    fitted = cross_fit(features, values, images.bucket.to_numpy(), mirrored)
    review = review_labels(values, fitted.predicted, fitted.variance)
    rank = np.zeros(len(images), int)
    chosen = next_images(values, fitted.predicted, fitted.variance, features, fitted.models)
    if first is not None:
        chosen = np.concatenate([first, chosen[~np.isin(chosen, first)]])[
            : max(len(chosen), len(first))
        ].astype(int)
    rank[chosen] = np.arange(1, len(chosen) + 1)
    table = images[["gender", "stem", "value"]].assign(
        predicted=np.round(fitted.predicted, DECIMALS),
        uncertainty=np.round(review.deviation, DECIMALS),
        suspicion=np.round(review.suspicion, DECIMALS),
        next=pd.array(np.where(rank > 0, rank, -1), dtype="Int64"),
    )
    table["next"] = table["next"].mask(table["next"] < 0)
    return table[list(REVIEW_COLUMNS)].sort_values(["gender", "stem"], ignore_index=True)


def half_closed(opening: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Rows without a label whose eyes are less open than ``HALF_CLOSED`` times the median: the
    least open first, at most ``MOST_HALF_CLOSED``.

    ``opening (N,)`` as ``features.part_measures.lid_opening`` measures it, NaN where it was not
    measured; ``labelled (N,) bool``. Closed eyes are rare; without labels of them no model can
    predict them and no slider can reach them."""
    rows = np.flatnonzero(~labelled & (opening < HALF_CLOSED * np.nanmedian(opening)))
    return rows[np.argsort(opening[rows], kind="stable")][:MOST_HALF_CLOSED]


def review_labels(values: np.ndarray, predicted: np.ndarray, variance: np.ndarray) -> Review:
    """The suspicion of each label and its expected deviation, for ``values (N,)`` in 0..1 or NaN
    and their out-of-fold ``predicted`` and ``variance (N,)``.

    The residual of a correct label is taken as normal. Its variance is the mean of the variance
    among labels with similar predictions (aleatoric) and that of all labels, multiplied by the
    model's own ``variance`` (epistemic, in any unit) relative to its mean. A wrong label is uniform
    in 0..1. The suspicion is the posterior probability of a wrong label (Box and Tiao 1968). It
    ranks labels much as the score of Zhou et al. 2023 (“Detecting errors in a numerical response
    via any regression model”, arXiv 2305.16583: residual over both uncertainties), but it is a
    probability, so its sum is the expected number of wrong labels. Raises ``ValueError`` without
    any label."""
    labelled = np.isfinite(values)
    if not labelled.any():
        raise ValueError("no labels to review")
    residual = (values - predicted)[labelled]
    squares = np.square(residual)
    everywhere = squares.mean()
    near = np.exp(
        -0.5 * np.square((predicted[:, None] - predicted[labelled][None]) / NEIGHBOURHOOD)
    )
    # each label is left out of its own neighbourhood
    near[np.flatnonzero(labelled), np.arange(len(residual))] = 0.0
    # one more neighbour, with the variance of all labels, stabilises sparse neighbourhoods
    local = (near @ squares + everywhere) / (near.sum(axis=1) + 1.0)
    relative = variance / variance[labelled].mean()
    deviation = np.sqrt(0.5 * (local + everywhere) * relative) + LEAST_DEVIATION
    own = deviation[labelled]
    density = np.exp(-0.5 * np.square(residual / own)) / (np.sqrt(2.0 * np.pi) * own)
    suspicion = np.full(len(values), np.nan)
    suspicion[labelled] = SHARE_WRONG / (SHARE_WRONG + (1.0 - SHARE_WRONG) * density)
    return Review(suspicion, deviation)


def look_wrong(suspicion: np.ndarray) -> np.ndarray:
    """``(N,) bool``: the labels to check, the most suspicious ones, as many as are expected to be
    wrong (the sum of ``suspicion (N,)``, NaN without a label).

    A fixed limit, such as .5, finds nearly none where predictions are uncertain, although their
    suspicions add up to several wrong labels."""
    chosen = np.zeros(len(suspicion), bool)
    expected = round(float(np.nansum(suspicion)))
    chosen[np.argsort(-suspicion, kind="stable")[:expected]] = True  # NaN comes last
    return chosen


def next_images(
    values: np.ndarray,
    predicted: np.ndarray,
    variance: np.ndarray,
    features: np.ndarray,
    models: list[KernelRegression],
    most: int = MOST_NEXT,
) -> np.ndarray:
    """Rows of the images to label next, best first: at most ``most`` of those without a value.

    ``values (N,)`` is NaN where there is no label; for the other arguments see ``cross_fit``.
    """
    labelled = np.isfinite(values)
    weight = rarity(values[labelled], predicted)
    open_rows = np.flatnonzero(~labelled)
    candidates = open_rows[
        np.argsort(-(weight * variance)[open_rows], kind="stable")[:MOST_CANDIDATES]
    ]
    others = np.setdiff1d(np.arange(len(values)), candidates)
    wanted = np.concatenate([candidates, others[:: max(1, -(-len(others) // MOST_WANTED))]])
    covariance = np.mean(
        [model.covariance(features[:, candidates], features[:, wanted]) for model in models], axis=0
    )
    return candidates[choose_next(covariance, NOISE, weight[candidates], most)]


def rarity(values: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """``(M,)`` weights of images, larger where few labels are near the predicted value; their mean
    over the labels is 1.

    ``values (N,)``: the existing labels; ``predicted (M,)``.
    """

    def density(at: np.ndarray) -> np.ndarray:
        return (
            np.exp(-0.5 * np.square((at[:, None] - values[None]) / NEIGHBOURHOOD)).mean(axis=1)
            + 0.05
        )

    return 1.0 / np.sqrt(density(predicted)) / np.mean(1.0 / np.sqrt(density(values)))


def choose_next(covariance: np.ndarray, noise: float, weight: np.ndarray, most: int) -> np.ndarray:
    """The candidates most worth a label, best first: at most ``most`` indices.

    ``covariance (m, M)``: posterior covariance of the ``m`` candidates, which are also the first
    ``m`` columns, with the ``M`` images whose values are to be predicted; ``noise``: variance of a
    label in the same unit; ``weight (m,)``. Each step chooses the candidate whose label reduces the
    total variance of all images most, times its weight, given the candidates chosen before (Cohn
    1996, “Neural network exploration using optimal experiment design”). Candidates that tell little
    about other images, or nothing new, come late."""
    left = covariance.astype(np.float32)
    rows = np.arange(len(left))
    open_to_choice = np.ones(len(left), bool)
    chosen: list[int] = []
    for _ in range(min(most, len(left))):
        gain = weight * np.square(left).sum(axis=1) / (np.maximum(left[rows, rows], 0.0) + noise)
        best = int(np.where(open_to_choice, gain, -1.0).argmax())
        chosen.append(best)
        open_to_choice[best] = False
        left -= np.outer(left[:, best], left[best] / (max(float(left[best, best]), 0.0) + noise))
    return np.array(chosen, int)
