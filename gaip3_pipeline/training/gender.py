"""The classifier of sex, cross-fitted: each labelled picture is scored by models that were trained
without it and its twins.

Two experts whose logits are added (a product of experts, Hinton 2002): a convolutional network, and
a Gaussian process on the features of the input models, whose mean is converted to a logit by Platt
scaling (Platt 1999) of its leave-one-out predictions."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import keras
import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax

from gaip3_pipeline.features.extractor import Extractor, extract, load_extractor
from gaip3_pipeline.features.patches import HEIGHT, WIDTH
from gaip3_pipeline.imaging.augment import as_float, flip_some, jitter, shift, shrink
from gaip3_pipeline.imaging.packing import load_images
from gaip3_pipeline.layout import checkpoints, platt_file, weights_file
from gaip3_pipeline.models.backend import compile_options, seed_everything
from gaip3_pipeline.models.classifier import build_classifier
from gaip3_pipeline.models.scoring import score, score_all
from gaip3_pipeline.models.storage import load_config, load_weights, save_config, save_weights
from gaip3_pipeline.settings import GenderModel, InputModel
from gaip3_pipeline.tables.files import write_text_atomically
from gaip3_pipeline.tables.splits import folds_of
from gaip3_pipeline.training import checkpoint
from gaip3_pipeline.training.attribute_model import (
    AttributeGP,
    fit_process,
    load_input_model,
    save_input_model,
)
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.fit import fit
from gaip3_pipeline.training.optimizer import Adam, cosine_decay
from gaip3_pipeline.training.run import Log, Run, Trainings, one_after_another

MALE, FEMALE = 0, 1  # columns of logits and probabilities
SEX = "sex"  # name of the attribute of the processes
NO_FOLD = -1  # fold of a picture without a label, which all models score


@dataclass(frozen=True)
class GenderResult:
    """``history``: metrics per epoch, with a column per fold. ``logits``, ``probabilities``:
    ``(N, 2) float32`` out of fold, male first."""

    history: list[dict[str, float]]
    logits: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class GenderModels:
    """The trained networks and processes, one of each per fold, and the input size of the
    networks."""

    models: list[keras.Model]
    processes: list["ScaledProcess"]
    height: int
    width: int


@dataclass(frozen=True)
class ScaledProcess:
    """A Gaussian process of the label (1 female, 0 male), and the slope and offset that convert its
    mean to a logit of being female."""

    process: AttributeGP
    slope: float
    offset: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """``(N,) float32`` logits of being female, for ``features (2, N, D)`` of pictures and
        mirror images."""
        return (self.slope * self.process.posterior(features)[0] + self.offset).astype(np.float32)


@dataclass(frozen=True)
class LabelledFaces:
    """``images (N, H, W, 3) uint8``, ``is_female (N,) bool``, ``bucket (N,) int`` in 0..99, equal
    for twins, ``features (2, N, D)`` with the regions' limits ``groups`` (features/groups.py)."""

    images: np.ndarray
    is_female: np.ndarray
    bucket: np.ndarray
    features: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class _Fold:
    """A trained fold, whose network is among the checkpoints of its run: the metrics of each epoch,
    the process, and the logits ``(n, 2)`` of the n pictures that it was trained without."""

    history: list[dict[str, float]]
    process: ScaledProcess
    logits: np.ndarray


def train_gender(
    faces: LabelledFaces,
    settings: GenderModel,
    run: Run,
    trainings: Trainings = one_after_another,
) -> GenderResult:
    """Train ``settings.folds`` models into ``run.folder``, each on the other folds, and score every
    picture by the model trained without it. The folds are independent ``trainings``.

    The cross-entropy has no label smoothing, which would keep every score below the 99.99 % of the
    rule. Raises ``ValueError`` if a fold lacks one of the sexes."""
    fold = folds_of(faces.bucket, settings.folds)
    labels, folder = np.asarray(faces.is_female).astype(np.int32), run.folder
    for k in range(settings.folds):
        if len(set(labels[fold != k])) < 2 or not (fold == k).any():
            raise ValueError(
                f"gender model: {len(labels)} labelled pictures do not fill {settings.folds} folds"
                " with both sexes"
            )
    small = dataclasses.replace(
        faces, images=shrink(faces.images, settings.height, settings.width), is_female=labels
    )
    logits = np.zeros((len(labels), 2), np.float32)
    folds = []
    for k, trained in enumerate(
        trainings(
            partial(_train_fold, small, fold, settings),
            (_run_of_fold(run, k, settings.folds) for k in range(settings.folds)),
        )
    ):
        logits[fold == k] = trained.logits
        folds.append(trained)
    for k in range(settings.folds):
        made = weights_file(_run_of_fold(run, k, settings.folds).checkpoints)
        made.replace(weights_file(folder, f"fold{k}"))
    for k, trained in enumerate(folds):
        save_input_model(trained.process.process, folder, f"process{k}")
    lines = [{"slope": f.process.slope, "offset": f.process.offset} for f in folds]
    write_text_atomically(platt_file(folder), json.dumps(lines) + "\n")
    save_config(folder, dataclasses.asdict(settings))
    checkpoint.discard(checkpoints(folder))
    history = [
        {f"fold{k}_{n}": v for k, h in enumerate(epoch) for n, v in h.items()}
        for epoch in zip(*(f.history for f in folds), strict=True)
    ]
    return GenderResult(history, logits, probabilities_of(logits))


def _run_of_fold(run: Run, k: int, folds: int) -> Run:
    progress = run.progress and run.progress.another(
        f"{run.progress.label}, fold {k + 1} of {folds}"
    )
    return Run(run.folder, f"{run.fingerprint} fold {k}", _named(run.log, k), progress, f"fold{k}")


def load_gender_models(folder: Path) -> GenderModels:
    """The models of ``folder``. Raises ``FileNotFoundError`` if they are missing."""
    settings = GenderModel(**load_config(folder))
    models = []
    for k in range(settings.folds):
        model = load_weights(_build(settings), folder, f"fold{k}")
        model.compile(**compile_options())
        models.append(model)
    lines = json.loads((platt_file(folder)).read_text(encoding="utf-8"))
    processes = [
        ScaledProcess(load_input_model(folder, f"process{k}"), **line)
        for k, line in enumerate(lines)
    ]
    return GenderModels(models, processes, settings.height, settings.width)


def score_gender(
    models: GenderModels,
    extractor: Extractor,
    batches: Iterable[np.ndarray],
    done: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """``(N, folds, 2) float32`` logits of every fold for batches of ``(B, H, W, 3) uint8``, and the
    features of the trunk that they were computed from, ``(2, N, D) float16``; ``done(n)`` is called
    with the number of pictures scored so far."""
    scored, seen, n = [], [], 0
    for batch in batches:
        features = extract(extractor, [batch], with_parts=False)
        networks = score_all(models.models, [batch], models.height, models.width)
        folds = [
            add_logits(logits, process.logits(features))
            for logits, process in zip(networks, models.processes, strict=True)
        ]
        scored.append(np.stack(folds, axis=1))
        seen.append(features)
        n += len(batch)
        if done:
            done(n)
    if not scored:
        none = np.zeros((0, len(models.models), 2), np.float32)
        return none, extract(extractor, [], with_parts=False)
    return np.concatenate(scored), np.concatenate(seen, axis=1)


@dataclass(frozen=True)
class GenderScoring:
    """:func:`score_gender` of the models and the extractor in two folders, as work for a
    :class:`gaip3_pipeline.imaging.mapping.Mapper`.

    ``version`` is a hash of their content; a process loads them once for each version."""

    models: Path
    extractor: Path
    version: str

    def __call__(self, paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
        """The logits and features of the N pictures at ``paths``."""
        models, extractor = _loaded(self.models, self.extractor, self.version)
        return score_gender(models, extractor, load_images(paths, HEIGHT, WIDTH))


@lru_cache(maxsize=1)
def _loaded(models: Path, extractor: Path, version: str) -> tuple[GenderModels, Extractor]:
    return load_gender_models(models), load_extractor(extractor)


def fit_platt(features: np.ndarray, groups: np.ndarray, labels: np.ndarray) -> ScaledProcess:
    """The process of ``labels (N,)`` in {0, 1}, with the slope and offset of greatest likelihood
    for its leave-one-out predictions."""
    process = fit_process(SEX, features, groups, labels.astype(np.float64), InputModel())
    predicted, women = process.left_out(), labels == FEMALE
    # Platt's targets: not exactly 0 and 1, since a class of n pictures leaves an uncertainty
    target = np.where(women, (women.sum() + 1) / (women.sum() + 2), 1 / ((~women).sum() + 2))

    def loss(line: np.ndarray) -> float:
        margin = line[0] * predicted + line[1]
        return float((np.logaddexp(0.0, margin) - target * margin).mean())

    slope, offset = minimize(
        loss, np.array([10.0, -5.0]), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-9}
    ).x
    return ScaledProcess(process, float(slope), float(offset))


def add_logits(logits: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """The sum of two experts: ``logits (N, 2)`` of male and female plus ``margin (N,)``, a second
    expert's log odds of female."""
    return logits + 0.5 * np.stack([-margin, margin], axis=1)


def combine(logits: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """One pair of logits per picture, ``(N, 2) float32``, from ``logits (N, folds, 2)``.

    A picture with a ``fold`` (a labelled one, its brightness copy or another twin) has the logits
    of that fold's model, which was trained without it; a picture with ``NO_FOLD`` has the mean
    logits of all models. Logits are averaged, not probabilities: a mean of probabilities passes the
    99.99 % rule only if every model does."""
    fold = np.asarray(fold)
    own = logits[np.arange(len(logits)), np.maximum(fold, 0)]
    return np.where((fold == NO_FOLD)[:, None], logits.mean(axis=1), own).astype(np.float32)


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """``(N, 2)`` logits to ``(N, 2) float32`` probabilities of male and female."""
    return softmax(logits.astype(np.float64), axis=1).astype(np.float32)


def _train_fold(
    faces: LabelledFaces, fold: np.ndarray, settings: GenderModel, k: int, run: Run
) -> _Fold:
    """Train fold ``k`` on the other folds of ``faces``, whose pictures have the model's size and
    whose labels are 0 and 1."""
    seen, labels = fold != k, faces.is_female
    model, history = _train_network(
        {"image": faces.images[seen], "label": labels[seen]}, k, settings, run
    )
    process = fit_platt(faces.features[:, seen], faces.groups, labels[seen])
    logits = add_logits(
        score(model, [faces.images[~seen]], settings.height, settings.width),
        process.logits(faces.features[:, ~seen]),
    )
    save_weights(model, run.checkpoints)
    return _Fold(history, process, logits)


def _train_network(
    arrays: dict[str, np.ndarray],
    k: int,
    settings: GenderModel,
    run: Run,
) -> tuple[keras.Model, list[dict[str, float]]]:
    def augmented(
        batch: dict[str, np.ndarray], generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        flipped, _ = flip_some(batch["image"], generator)
        return (
            jitter(as_float(shift(flipped, settings.shift, generator)), settings.jitter, generator),
            batch["label"],
        )

    seed_everything(settings.seed + k)
    model = _build(settings)
    batches = ArrayBatches(arrays, settings.batch_size, settings.seed + k, augmented)
    model.compile(
        optimizer=Adam(cosine_decay(settings.learning_rate, len(batches), settings.epochs)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        **compile_options(),
    )
    return model, fit(model, batches, run, epochs=settings.epochs)


def _build(settings: GenderModel) -> keras.Model:
    return build_classifier(
        settings.height, settings.width, settings.width_multiplier, settings.dropout
    )


def _named(log: Log, k: int) -> Log:
    return lambda step, figures: log(
        step, {f"fold{k}_{name}": value for name, value in figures.items()}
    )
