"""Fresh judges: classifiers of photographs against samples that are made for one measurement and
thrown away.

What a critic of the pipeline says of pictures that were made to please critics is no evidence.
These have never steered anything: a convolutional network without spectral norm, and a logistic
regression on gradient histograms, colours and frequencies. Both learn from held-out photographs
and new samples, and score each picture out of fold. Their figures count only if the same recipe
tells what must be told (blurred photographs, samples without detail) and finds nothing where
nothing is (two halves of the photographs)."""

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

JPEG_QUALITY = 95
SEEDS, FOLDS = 3, 5
# divisions of the photographs into halves: of few pictures each differs much, and their mean does
# not
HALVINGS = 4
SIZES = {"full": 1, "half": 2, "quarter": 4}
BLUR = 0.7  # pixels, of the photographs that a judge must tell
# least AUC, least AUC, most distance from .5
TELLS_BLUR, TELLS_PLAIN, FINDS_NOTHING = 0.9, 0.97, 0.05
# of the network; few pictures are gone through more often, until there were so many updates
EPOCHS, UPDATES = 10, 100
BATCH, RATE, CHANNELS, DROPOUT, SCORED = 32, 2e-3, (16, 32, 48), 0.3, 256
CELLS, ORIENTATIONS = 8, 9  # of gradient histograms, along a picture's height

MAKES = ("network", "regression")


class Make(Protocol):
    """A kind of classifier."""

    def see(self, images: np.ndarray) -> np.ndarray:
        """``(N, …)``: what it learns from, of pictures ``(N, H, W, 3) uint8``."""

    def scores(self, seen: np.ndarray, is_a: np.ndarray, fold: np.ndarray, seed: int) -> np.ndarray:
        """``(N,)``: for each row of ``seen`` the score of a classifier of ``is_a (N,) bool``
        that did not learn from the row's ``fold``."""


@dataclass(frozen=True)
class Side:
    """Pictures of one side: ``groups (N,)``, which may not lie in different folds, and ``see``,
    what a make learns from at a part of the size ``(N, …)``; each is computed once."""

    groups: np.ndarray
    see: Callable[[Make, int], np.ndarray]

    def part(self, which: np.ndarray) -> "Side":
        """The pictures ``which (N,) bool``."""
        return Side(self.groups[which], lambda make, divisor: self.see(make, divisor)[which])


def side_of(images: np.ndarray, groups: np.ndarray) -> Side:
    """``images (N, H, W, 3) uint8`` through one JPEG of quality 95, as all pictures of both
    sides go."""
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
    """AUC of photographs against ``samples`` by each make at each size, and whether the makes can
    be believed.

    ``photographs (N, …)``, held out from the generator, with their ``groups (N,)`` of twins;
    ``samples`` and, without detail, ``plain (M, H, W, 3) uint8`` of the generator's size.
    ``judge_{make}_{size}``: the mean of ``SEEDS`` seeds, with ``_deviation``;
    ``judge_{make}_tells_blur``, ``_tells_plain``: of one seed, at full size;
    ``judge_{make}_nothing_{size}``: two halves of the photographs, the mean of ``HALVINGS``
    divisions."""
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
    """Why a make's figures do not count, a phrase each; empty where they do."""
    said = []
    for make in MAKES:
        blur, plain = figures[f"judge_{make}_tells_blur"], figures[f"judge_{make}_tells_plain"]
        nothing = {size: figures[f"judge_{make}_nothing_{size}"] for size in SIZES}
        if not blur >= TELLS_BLUR:
            said.append(
                f"{make}: AUC {blur:.3f} of photographs blurred by {BLUR:g} pixels (at least"
                f" {TELLS_BLUR:g})"
            )
        if not plain >= TELLS_PLAIN:
            said.append(
                f"{make}: AUC {plain:.3f} of samples without detail (at least {TELLS_PLAIN:g})"
            )
        said += [
            f"{make}: AUC {auc:.3f} between two halves of the photographs at {size} size (.5 ±"
            f" {FINDS_NOTHING:g})"
            for size, auc in nothing.items()
            if not abs(auc - 0.5) <= FINDS_NOTHING
        ]
    return said


def told_apart(a: Side, b: Side, make: Make, divisor: int, seed: int) -> float:
    """The AUC of ``a`` against ``b`` at their size over ``divisor``: the mean over folds held out.

    Raises ``ValueError`` where a side has fewer groups than there are folds.
    """
    if min(len(np.unique(s.groups)) for s in (a, b)) < FOLDS:
        raise ValueError(
            f"fresh judges: {len(a.groups)} and {len(b.groups)} pictures are too few for {FOLDS}"
            " folds"
        )
    is_a = np.repeat([True, False], [len(a.groups), len(b.groups)])
    fold = np.concatenate([_folds(s.groups, seed) for s in (a, b)])
    scores = make.scores(np.concatenate([s.see(make, divisor) for s in (a, b)]), is_a, fold, seed)
    # By fold: scores of different folds come from different classifiers, and pooled they lean below
    # .5 where there is nothing to find.
    return float(np.mean([roc_auc(scores[fold == f], is_a[fold == f]) for f in np.unique(fold)]))


def _folds(groups: np.ndarray, seed: int) -> np.ndarray:
    names, index = np.unique(groups, return_inverse=True)
    # By the name of the group, so that one that lies on both sides is in one fold.
    order = np.argsort([np.random.default_rng((seed, int(name))).random() for name in names])
    place = np.empty(len(names), int)
    place[order] = np.arange(len(names))
    return (place * FOLDS // len(names))[index]


def _halves(whole: Side, seed: int) -> tuple[Side, Side]:
    names = np.random.default_rng(seed).permutation(np.unique(whole.groups))
    first = np.isin(whole.groups, names[: len(names) // 2])
    return whole.part(first), whole.part(~first)


class Network:
    """A convolutional network without spectral norm for each fold, trained together. It is
    compiled once for each size, and its weights are drawn anew for each judgement."""

    def __init__(self) -> None:
        self._models: dict[tuple[int, int], keras.Model] = {}

    def see(self, images: np.ndarray) -> np.ndarray:
        """The pictures as they are: as numbers they would fill the memory."""
        return images

    def scores(self, seen: np.ndarray, is_a: np.ndarray, fold: np.ndarray, seed: int) -> np.ndarray:
        """Those of the networks that did not see the fold."""
        size = (seen.shape[1], seen.shape[2])
        if size not in self._models:
            self._models[size] = _compiled(*size)
        model, generator, floats = self._models[size], np.random.default_rng(seed), as_float(seen)
        for variable in model.weights:  # He's initialisation; biases are 0
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
    model.compile(keras.optimizers.Adam(RATE), cross_entropy, **compile_options())
    model.optimizer.build(model.trainable_variables)
    return model


class Regression:
    """A logistic regression on what :func:`described` finds."""

    def see(self, images: np.ndarray) -> np.ndarray:
        """``(N, D)``"""
        return described(images)

    def scores(self, seen: np.ndarray, is_a: np.ndarray, fold: np.ndarray, seed: int) -> np.ndarray:
        """Those of the regressions that did not see the fold."""
        scores = np.zeros(len(seen))
        for held_out in np.unique(fold):
            learned = fold != held_out
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
            model.fit(seen[learned], is_a[learned])
            scores[~learned] = model.decision_function(seen[~learned])
        return scores


def described(images: np.ndarray) -> np.ndarray:
    """``(N, D)``: gradient histograms (Dalal and Triggs 2005), colours of a grid, and each
    octave's power and kurtosis."""
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
    """``(N, D)``: in each cell how much of the gradient lies along each orientation, blocks of 2
    × 2 cells brought to unit norm."""
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
