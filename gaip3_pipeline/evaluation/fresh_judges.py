"""Fresh judges: classifiers of photographs against samples that are trained for one measurement and
then discarded.

The pipeline's own critics cannot measure realism without bias, because the pictures were optimised
against such critics. Fresh judges have never steered anything. There are two makes: a convolutional
network without spectral norm, and a logistic regression on gradient histograms, colours and
frequencies. Both learn from held-out photographs and new samples, and score each picture out of
fold. Their figures are valid only if judges of the same make detect what they must (blurred
photographs, samples without detail) and find no difference where there is none (two halves of the
photographs)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import cv2
import keras
import numpy as np
from keras import layers
from scipy.stats import kurtosis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gaip3_pipeline.imaging.augment import as_float, shrink
from gaip3_pipeline.metrics.classification import roc_auc
from gaip3_pipeline.metrics.sharpness import bands
from gaip3_pipeline.models.backend import compile_options
from gaip3_pipeline.training.critic import MASKED, as_jpegs, cross_entropy
from gaip3_pipeline.training.optimizer import Adam

JPEG_QUALITY = 95
SEEDS, FOLDS = 3, 5
# Divisions of the photographs into halves. With few pictures one division is noisy; the mean of
# several is not.
HALVINGS = 4
SIZES = {"full": 1, "half": 2, "quarter": 4}
BLUR = 0.7  # standard deviation in pixels, of the photographs that a judge must detect
# least AUC for blur, least AUC for missing detail, greatest distance from .5 for two halves
TELLS_BLUR, TELLS_PLAIN, FINDS_NOTHING = 0.9, 0.97, 0.05
# least epochs and least updates of the network: with few pictures there are more epochs
EPOCHS, UPDATES = 10, 100
BATCH, RATE, CHANNELS, DROPOUT, SCORED = 32, 2e-3, (16, 32, 48), 0.3, 256
CELLS, ORIENTATIONS = 8, 9  # of gradient histograms, along a picture's height

MAKES = ("network", "regression")


class Make(Protocol):
    """A kind of classifier: how it represents pictures, and how it scores them."""

    def see(self, images: np.ndarray) -> np.ndarray:
        """``(N, …)``: the input of the classifier for pictures ``(N, H, W, 3) uint8``."""

    def scores(self, seen: np.ndarray, is_a: np.ndarray, fold: np.ndarray, seed: int) -> np.ndarray:
        """``(N,)`` out-of-fold scores: each row of ``seen`` is scored by a classifier of ``is_a
        (N,) bool`` that was not trained on the row's ``fold``."""


@dataclass(frozen=True)
class Side:
    """The pictures of one side: ``groups (N,)``, none of which may be in two folds, and ``see``,
    the input ``(N, …)`` of a make at the size over a divisor; each input is computed once."""

    groups: np.ndarray
    see: Callable[[Make, int], np.ndarray]

    def part(self, which: np.ndarray) -> "Side":
        """The pictures ``which (N,) bool``."""
        return Side(self.groups[which], lambda make, divisor: self.see(make, divisor)[which])


def side_of(images: np.ndarray, groups: np.ndarray) -> Side:
    """The side of ``images (N, H, W, 3) uint8``, encoded once as JPEG of quality 95, so that
    compression does not tell the sides apart."""
    coded = as_jpegs(images, [JPEG_QUALITY] * len(images))

    seen: dict[tuple[Make, int], np.ndarray] = {}

    def see(make: Make, divisor: int) -> np.ndarray:
        if (make, divisor) not in seen:
            seen[make, divisor] = make.see(
                shrink(coded, *(math.ceil(n / divisor) for n in coded.shape[1:3]))
            )
        return seen[make, divisor]

    return Side(np.asarray(groups), see)


def fresh_judges(
    photographs: np.ndarray,
    groups: np.ndarray,
    samples: np.ndarray,
    plain: np.ndarray,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """AUC of photographs against ``samples`` for each make and size, and the AUCs that show whether
    the makes are valid.

    ``photographs (N, …)``, held out from the generator, with their ``groups (N,)`` of twins;
    ``samples`` and, without detail, ``plain``, both ``(M, H, W, 3) uint8`` of the generator's size.
    ``judge_{make}_{size}``: the mean of ``SEEDS`` seeds, with the standard deviation
    ``_deviation``; ``judge_{make}_tells_blur`` and ``_tells_plain``: photographs against blurred
    ones and against samples without detail, one seed at full size; ``judge_{make}_nothing_{size}``:
    two halves of the photographs, the mean of ``HALVINGS`` divisions."""
    pictures = shrink(photographs, *samples.shape[1:3])
    blurred = np.stack([cv2.GaussianBlur(i, (0, 0), BLUR) for i in pictures])
    real, soft = (side_of(images, groups) for images in (pictures, blurred))
    first = real.groups.max() + 1
    drawn, undetailed = (
        side_of(images, first + np.arange(len(images))) for images in (samples, plain)
    )
    tasks = [
        (make, size, name, other)
        for make in MAKES
        for size in SIZES
        for name, other in (("", drawn), ("_nothing", None))
    ]
    tasks += [
        (make, "full", name, other)
        for make in MAKES
        for name, other in (("_tells_blur", soft), ("_tells_plain", undetailed))
    ]
    figures: dict[str, float] = {}
    makes: dict[str, Make] = {"network": Network(), "regression": Regression()}
    for done, (make, size, name, other) in enumerate(tasks, 1):
        seeds = 1 if name.startswith("_tells") else SEEDS
        sides = (
            [_halves(real, seed) for seed in range(HALVINGS)]
            if other is None
            else [(real, other)] * seeds
        )
        found = [
            told_apart(*pair, makes[make], SIZES[size], seed) for seed, pair in enumerate(sides)
        ]
        key = f"judge_{make}{name}" + ("" if name.startswith("_tells") else f"_{size}")
        figures[key] = float(np.mean(found))
        if not name:
            figures[f"{key}_deviation"] = float(np.std(found, ddof=1))
        if progress:
            progress(done, len(tasks))
    return figures


def unbelievable(figures: Mapping[str, float]) -> list[str]:
    """The reasons why a make's figures are not valid, a phrase each; empty if they are."""
    reasons = []
    for make in MAKES:
        blur, plain = figures[f"judge_{make}_tells_blur"], figures[f"judge_{make}_tells_plain"]
        nothing = {size: figures[f"judge_{make}_nothing_{size}"] for size in SIZES}
        if not blur >= TELLS_BLUR:
            reasons.append(
                f"{make}: AUC {blur:.3f} of photographs blurred by {BLUR:g} pixels (at least"
                f" {TELLS_BLUR:g})"
            )
        if not plain >= TELLS_PLAIN:
            reasons.append(
                f"{make}: AUC {plain:.3f} of samples without detail (at least {TELLS_PLAIN:g})"
            )
        reasons += [
            f"{make}: AUC {auc:.3f} between two halves of the photographs at {size} size (.5 ±"
            f" {FINDS_NOTHING:g})"
            for size, auc in nothing.items()
            if not abs(auc - 0.5) <= FINDS_NOTHING
        ]
    return reasons


def told_apart(a: Side, b: Side, make: Make, divisor: int, seed: int) -> float:
    """The AUC of ``a`` against ``b`` at their size over ``divisor``: the mean over the held-out
    folds.

    Raises ``ValueError`` if a side has fewer groups than there are folds.
    """
    if min(len(np.unique(s.groups)) for s in (a, b)) < FOLDS:
        raise ValueError(
            f"fresh judges: {len(a.groups)} and {len(b.groups)} pictures are too few for {FOLDS}"
            " folds"
        )
    is_a = np.repeat([True, False], [len(a.groups), len(b.groups)])
    fold = np.concatenate([_folds(s.groups, seed) for s in (a, b)])
    scores = make.scores(np.concatenate([s.see(make, divisor) for s in (a, b)]), is_a, fold, seed)
    # Fold by fold: scores of different folds come from different classifiers, and pooled they have
    # an AUC below .5 when the sides do not differ.
    return float(np.mean([roc_auc(scores[fold == f], is_a[fold == f]) for f in np.unique(fold)]))


def _folds(groups: np.ndarray, seed: int) -> np.ndarray:
    names, index = np.unique(groups, return_inverse=True)
    # The order depends on the group's name, so that a group on both sides is in the same fold.
    order = np.argsort([np.random.default_rng((seed, int(name))).random() for name in names])
    place = np.empty(len(names), int)
    place[order] = np.arange(len(names))
    return (place * FOLDS // len(names))[index]


def _halves(whole: Side, seed: int) -> tuple[Side, Side]:
    names = np.random.default_rng(seed).permutation(np.unique(whole.groups))
    first = np.isin(whole.groups, names[: len(names) // 2])
    return whole.part(first), whole.part(~first)


class Network:
    """A convolutional network without spectral norm for each fold, all trained together.

    The model is compiled once for each size; its weights are initialised again for each AUC."""

    def __init__(self) -> None:
        self._models: dict[tuple[int, int], keras.Model] = {}

    def see(self, images: np.ndarray) -> np.ndarray:
        """The pictures unchanged; as floats they would take four times the memory."""
        return images

    def scores(self, seen: np.ndarray, is_a: np.ndarray, fold: np.ndarray, seed: int) -> np.ndarray:
        """For each row the score of the network that was not trained on its fold."""
        size = (seen.shape[1], seen.shape[2])
        if size not in self._models:
            self._models[size] = _compiled(*size)
        model, generator, floats = self._models[size], np.random.default_rng(seed), as_float(seen)
        for variable in model.weights:  # He initialisation; biases are 0
            drawn = generator.normal(
                0, math.sqrt(2.0 / np.prod(variable.shape[:-1])), variable.shape
            )
            variable.assign(drawn if len(variable.shape) > 1 else np.zeros(variable.shape))
        for variable in model.optimizer.variables:
            variable.assign(np.zeros(variable.shape))
        model.optimizer.learning_rate.assign(RATE)
        targets = np.where(fold[:, None] == np.arange(FOLDS), MASKED, is_a[:, None]).astype(
            np.float32
        )
        for _ in range(max(EPOCHS, math.ceil(UPDATES * BATCH / len(seen)))):
            order = generator.permutation(len(seen))
            for i in range(0, len(order) - BATCH + 1, BATCH):
                rows = order[i : i + BATCH]
                flip = generator.random(len(rows)) < 0.5
                batch = np.where(flip[:, None, None, None], floats[rows, :, ::-1], floats[rows])
                model.train_on_batch(batch, targets[rows])
        scored = [
            np.asarray(model.predict_on_batch(floats[i : i + SCORED]))
            for i in range(0, len(floats), SCORED)
        ]
        return np.concatenate(scored)[np.arange(len(fold)), fold]


def _compiled(height: int, width: int) -> keras.Model:
    pictures = keras.Input((height, width, 3))
    logits = []
    for _ in range(FOLDS):
        h = layers.Rescaling(4.0, -2.0)(pictures)
        for channels in CHANNELS:
            h = layers.Conv2D(channels, 4, strides=2, padding="same", activation="relu")(h)
        logits.append(layers.Dense(1)(layers.Dropout(DROPOUT)(layers.Flatten()(h))))
    model = keras.Model(pictures, layers.Concatenate()(logits))
    model.compile(Adam(RATE), cross_entropy, **compile_options())
    model.optimizer.build(model.trainable_variables)
    return model


class Regression:
    """A logistic regression on the features of :func:`described`."""

    def see(self, images: np.ndarray) -> np.ndarray:
        """The features ``(N, D)`` of :func:`described`."""
        return described(images)

    def scores(self, seen: np.ndarray, is_a: np.ndarray, fold: np.ndarray, seed: int) -> np.ndarray:
        """For each row the score of the regression that was not trained on its fold."""
        scores = np.zeros(len(seen))
        for held_out in np.unique(fold):
            learned = fold != held_out
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
            model.fit(seen[learned], is_a[learned])
            scores[~learned] = model.decision_function(seen[~learned])
        return scores


def described(images: np.ndarray) -> np.ndarray:
    """``(N, D)`` features: gradient histograms (Dalal and Triggs 2005), the mean colours of a 6 × 5
    grid, and the log deviation and log kurtosis of each octave."""
    n = len(images)
    colours = (
        np.stack([cv2.resize(i, (5, 6), interpolation=cv2.INTER_AREA).ravel() for i in images])
        / 255.0
    )
    octaves = []
    for band in bands(images):
        flat = band.reshape(n, -1).astype(np.float64)
        tails = np.nan_to_num(kurtosis(flat, axis=1, fisher=False))  # a flat picture has none
        octaves += [np.log(flat.std(axis=1) + 1e-3), np.log(tails + 1e-3)]
    return np.concatenate(
        [_gradient_histograms(images), colours, np.stack(octaves, axis=1)], axis=1
    )


def _gradient_histograms(images: np.ndarray) -> np.ndarray:
    """``(N, D)``: for each cell the gradient magnitude by orientation; blocks of 2 × 2 cells are
    normalised to unit norm."""
    cell = max(2, images.shape[1] // CELLS)
    rows, columns = (size // cell for size in images.shape[1:3])
    grey = images[:, : rows * cell, : columns * cell].astype(np.float32).mean(axis=3)
    down, right = np.gradient(grey, axis=(1, 2))
    strength, orientation = (
        np.hypot(down, right),
        np.floor(np.arctan2(down, right) / np.pi % 1.0 * ORIENTATIONS).astype(int),
    )
    along = strength[..., None] * (
        np.minimum(orientation, ORIENTATIONS - 1)[..., None] == np.arange(ORIENTATIONS)
    )
    cells = along.reshape(len(images), rows, cell, columns, cell, ORIENTATIONS).sum(axis=(2, 4))
    corners = [cells[:, i : rows - 1 + i, j : columns - 1 + j] for i in (0, 1) for j in (0, 1)]
    blocks = np.concatenate(corners, axis=-1)
    return (blocks / (np.linalg.norm(blocks, axis=-1, keepdims=True) + 1.0)).reshape(
        len(images), -1
    )
