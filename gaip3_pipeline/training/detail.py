"""Training of the detail network against a discriminator, on samples and on reconstructions.

The loss of the network, with the mean pictures m of samples and of reconstructions, noise maps n,
its pictures x = m + change(m, n) and the discriminator's logits D of patches and of whole pictures:

    L = − E D(T(x)) + w_low · E |Q(x) − Q(m)| + w_near · E |x_r − y| + w_values · E (r(x) − c)²

with the augmentation T (DiffAugment, Zhao et al. 2020, arXiv 2006.10738), the reduction Q to a
quarter of the size, reconstructions x_r of the pictures y, and the predictions r(x) of the frozen
regressors for the five values c. The discriminator has the hinge loss (Lim and Ye 2017, arXiv
1705.02894) on pictures T(y) against T(x) of samples and reconstructions. It is trained on the
generator's training split only."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from gaip3_pipeline.attributes import ATTRIBUTES, MIRRORED
from gaip3_pipeline.imaging.augment import flip_some, shrink
from gaip3_pipeline.imaging.contact_sheet import contact_sheet
from gaip3_pipeline.layout import DETAIL_START
from gaip3_pipeline.metrics.neighbours import mean_pairwise_distance
from gaip3_pipeline.metrics.sharpness import octaves, power_ratio
from gaip3_pipeline.models.backend import compile_options, compiled, follow, seed_everything
from gaip3_pipeline.models.detail import DetailNetwork, Discriminator, halved
from gaip3_pipeline.models.regressor import values_error
from gaip3_pipeline.progress import Progress
from gaip3_pipeline.sampling.draw import SEED_OFFSET, FaceGenerator, as_bytes, noise_maps
from gaip3_pipeline.settings import Detail, Samples
from gaip3_pipeline.tables.files import writing
from gaip3_pipeline.training import checkpoint
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.fit import DivergedError, fit
from gaip3_pipeline.training.optimizer import Adam
from gaip3_pipeline.training.run import Run

Tensor = Any
NETWORKS = ("network", "discriminator")
# least number of samples and of reconstructions drawn before the training; most draws of each
# picture
POOL, MOST_DRAWS = 4096, 4
WATCHED, SHOWN = 128, 16  # faces for the metrics of each epoch; those of them that it shows
# limits of a collapse: diversity relative to the mean pictures, power relative to photographs
LEAST_DIVERSITY, MOST_POWER = 0.7, 4.0
# the training ends if the mean of r_t over this many epochs exceeds this limit: the discriminator
# has memorised its pictures (knows_by_heart)
BY_HEART, LATELY = 0.6, 5
VALUES_SHARE = 4  # the guides evaluate one of this many pictures
TURNS = np.array([a in MIRRORED for a in ATTRIBUTES])
Show = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class Pool:
    """The training data of the detail network.

    ``samples (P, H, W, 3) uint8``: mean pictures drawn for ``asked (P, 5)``;
    ``rebuilt (R, H, W, 3) uint8``: mean reconstructions of the rows ``of (R,)`` of
    ``photographs (N, …, 3) uint8`` of any size, whose values are ``read (N, 5)``."""

    samples: np.ndarray
    asked: np.ndarray
    rebuilt: np.ndarray
    of: np.ndarray
    photographs: np.ndarray
    read: np.ndarray

    def batches(self, settings: Detail) -> ArrayBatches:
        """Batches for :class:`DetailTraining`: samples, and as many reconstructions with their
        photographs, each mirrored with probability 1/2."""
        height, width = self.samples.shape[1:3]
        n = max(len(self.samples), len(self.rebuilt))

        def pick(
            batch: dict[str, np.ndarray], generator: np.random.Generator
        ) -> tuple[dict[str, np.ndarray]]:
            which = batch["rebuilt"]
            sample, turned = flip_some(self.samples[batch["sample"]], generator)
            rebuilt, mirrored = flip_some(self.rebuilt[which], generator)
            photograph = shrink(np.asarray(self.photographs[self.of[which]]), height, width)
            photograph = np.where(mirrored[:, None, None, None], photograph[:, :, ::-1], photograph)
            asked, read = self.asked[batch["sample"]], self.read[self.of[which]]
            return (
                {
                    "sample": sample,
                    "rebuilt": rebuilt,
                    "photograph": photograph,
                    "asked": np.where(turned[:, None] & TURNS, 1.0 - asked, asked),
                    "read": np.where(mirrored[:, None] & TURNS, 1.0 - read, read),
                },
            )

        rows = {
            "sample": np.resize(np.arange(len(self.samples)), n),
            "rebuilt": np.resize(np.arange(len(self.rebuilt)), n),
        }
        return ArrayBatches(rows, settings.batch_size, settings.seed, pick, steps=settings.steps)


def draw_pool(
    generator: FaceGenerator,
    photographs: np.ndarray,
    values: np.ndarray,
    settings: Samples,
    seen: int,
    progress: Progress | None = None,
) -> Pool:
    """Mean pictures of samples and of reconstructions of ``photographs (N, …, 3) uint8`` with
    ``values (N, 5)``, at most ``seen`` of each, as many as the training sees.

    Samples are drawn with ``settings``; the generator's detail network is not used. The pool takes
    about 2 · max(N, 4096) · H · W · 3 bytes."""
    values = np.asarray(values, np.float32)
    random = np.random.default_rng(settings.seed)
    rows = random.integers(0, len(values), min(seen, max(POOL, len(values))))
    seeds = settings.seed + SEED_OFFSET["detail"] + np.arange(len(rows))
    plain = generator.without_detail
    samples = np.concatenate(list(plain.draw(seeds, values[rows], settings, progress)))
    of = np.arange(len(values))
    if seen < len(of):
        of = np.sort(random.permutation(of)[:seen])
    draws = min(MOST_DRAWS, math.ceil(min(seen, POOL) / len(of)))
    rebuilt = np.concatenate(
        [plain.reconstructions(photographs[of], values[of], 0.0, draw) for draw in range(draws)]
    )
    return Pool(samples, values[rows], rebuilt, np.tile(of, draws), photographs, values)


def pictures_seen(settings: Detail) -> int:
    """The number of samples, and of reconstructions, in all batches of a training."""
    return settings.epochs * settings.steps * settings.batch_size


@dataclass(frozen=True)
class Watched:
    """The pictures for the metrics of each epoch: mean pictures of samples ``(N, H, W, 3) uint8``,
    and photographs of the same size for comparison."""

    means: np.ndarray
    photographs: np.ndarray


def draw_watched(
    generator: FaceGenerator, photographs: np.ndarray, values: np.ndarray, settings: Samples
) -> Watched:
    """Samples for at most ``WATCHED`` of the held-out ``values (N, 5)``, with their
    ``photographs (N, …, 3) uint8``."""
    n = min(WATCHED, len(values))
    plain = generator.without_detail
    seeds = settings.seed + SEED_OFFSET["detail"] - 1 - np.arange(n)
    means = np.concatenate(list(plain.draw(seeds, values[:n], settings)))
    return Watched(means, shrink(photographs[:n], *means.shape[1:3]))


@dataclass(frozen=True)
class DetailResult:
    """The trained networks, the metrics of each epoch, the number of training pictures, and whether
    the training began with start weights."""

    network: DetailNetwork
    discriminator: Discriminator
    history: list[dict[str, float]]
    n_train: int
    started: bool

    @property
    def figures(self) -> dict[str, float | int | bool]:
        """The metrics to report: n, epochs, and the last epoch's metrics of samples relative to
        held-out photographs."""
        last = {
            name.removeprefix("val_"): value
            for name, value in self.history[-1].items()
            if name.startswith("val_")
        }
        trained = {
            "n_train": self.n_train,
            "epochs": len(self.history),
            "from_start_weights": self.started,
        }
        return trained | last | {"overfitting": self.history[-1]["overfitting"]}


class DetailTraining(keras.Model):
    """The detail network as ``fit`` trains it: ``network`` and ``discriminator`` learn; ``ema`` is
    the moving average of ``network``, which is kept.

    Takes batches ``{"sample", "rebuilt": mean pictures, "photograph": what was reconstructed, (B,
    H, W, 3) uint8 each, "asked", "read": (B, 5) the values of samples and of photographs}``. Both
    networks are updated in the same step; the step counter, the average and the seeds are
    variables, so that a checkpoint of them resumes everything.

    ``guides``: frozen regressors, ``(B, h, w, 3) float32`` in 0..1 to ``(B, K)`` each, which
    together predict the five values; ``known (5,)``: which of the values they can predict; the
    others are ignored."""

    def __init__(
        self,
        settings: Detail,
        height: int,
        width: int,
        guides: Sequence[keras.Model] = (),
        known: Sequence[bool] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.network, self.ema = DetailNetwork(settings.channels), DetailNetwork(settings.channels)
        self.discriminator = Discriminator(settings.discriminator, height, width)
        self.network(np.zeros((1, height, width, 4), np.float32))
        self.ema(np.zeros((1, height, width, 4), np.float32))
        self.discriminator(np.zeros((1, height, width, 3), np.float32))
        self.ema.set_weights(self.network.get_weights())
        self.ema.trainable = False
        self.guides, self.known = list(guides), [float(k) for k in known] or [1.0] * len(ATTRIBUTES)
        for guide in self.guides:
            guide.trainable = False
        self.step = self.add_weight(
            shape=(), initializer="zeros", dtype="float32", trainable=False, name="step"
        )
        self.random = keras.random.SeedGenerator(settings.seed)
        names = ("adversarial", "low", "near", "values", "discriminator", "overfitting")
        self._figures = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True

    def call(self, inputs: dict[str, Tensor], training: bool = False) -> dict[str, Any]:
        """The detailed pictures of samples and reconstructions, the change from their means, and
        the discriminator's logits for both parts of the loss."""
        sample, rebuilt, photograph = (
            ops.cast(inputs[k], "float32") / 255.0 for k in ("sample", "rebuilt", "photograph")
        )
        means = ops.concatenate([sample, rebuilt], axis=0)
        noise = keras.random.normal((*ops.shape(means)[:3], 1), seed=self.random)
        change = (self.network if training else self.ema)(ops.concatenate([means, noise], axis=-1))
        pictures = means + change
        shown = self._augmented(ops.concatenate([photograph, ops.stop_gradient(pictures)], axis=0))
        return {
            "change": change,
            "pictures": pictures,
            "pleases": self.discriminator(self._augmented(pictures), frozen=True),
            "judged": self.discriminator(shown, training=training),
        }

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        s, n = self.settings, ops.shape(x["photograph"])[0]
        photograph, whole = ops.cast(x["photograph"], "float32") / 255.0, y_pred["judged"][1]
        terms = {
            "adversarial": -sum(ops.mean(logits) for logits in y_pred["pleases"]),
            "low": ops.mean(ops.abs(halved(halved(y_pred["change"])))),
            "near": ops.mean(ops.abs(y_pred["pictures"][n:] - photograph)),
            "values": self._values_error(
                y_pred["pictures"], ops.concatenate([x["asked"], x["read"]], axis=0)
            ),
            "discriminator": sum(
                ops.mean(ops.relu(1.0 - d[:n])) + ops.mean(ops.relu(1.0 + d[n:]))
                for d in y_pred["judged"]
            ),
            # r_t of Karras et al. 2020, equation 1: near 0 while the discriminator generalises, 1
            # if it has memorised its pictures.
            "overfitting": ops.mean(ops.sign(whole[:n])),
        }
        for name, value in terms.items():
            self._figures[name].update_state(value)
        if training:
            self._follow()
        # Each network gets the gradient of its own terms only: the discriminator's weights are
        # frozen in the adversarial term, and the discriminator's term has no gradient of the
        # network.
        loss = terms["adversarial"] + terms["discriminator"] + s.values * terms["values"]
        return loss + s.low * terms["low"] + s.near * terms["near"]

    def _values_error(self, pictures: Tensor, asked: Tensor) -> Tensor:
        """:func:`values_error` of one in ``VALUES_SHARE`` pictures; 0 without guides."""
        if not self.guides:
            return ops.convert_to_tensor(0.0)
        return values_error(
            self.guides, self.known, pictures[::VALUES_SHARE], asked[::VALUES_SHARE]
        )

    def _augmented(self, pictures: Tensor) -> Tensor:
        """DiffAugment: brightness, saturation, contrast, and a shift by up to an eighth of the
        size, padded with zeros."""
        batch, height, width = ops.shape(pictures)[0], pictures.shape[1], pictures.shape[2]
        strength = self.settings.augmentation

        def around(middle: float, reach: float) -> Tensor:
            return keras.random.uniform(
                (batch, 1, 1, 1), middle - reach, middle + reach, seed=self.random
            )

        pictures = pictures + around(0.0, strength / 2)
        grey = ops.mean(pictures, axis=3, keepdims=True)
        pictures = grey + (pictures - grey) * around(1.0, 2 * strength)
        mean = ops.mean(pictures, axis=(1, 2, 3), keepdims=True)
        pictures = mean + (pictures - mean) * around(1.0, strength)
        rows, columns = self._moves(batch, height), self._moves(batch, width)
        pictures = ops.reshape(
            ops.matmul(rows, ops.reshape(pictures, (-1, height, width * 3))), (-1, height, width, 3)
        )
        return ops.einsum("bij,bhjc->bhic", columns, pictures)

    def _moves(self, batch: Any, size: int) -> Tensor:
        """``(B, size, size)``: matrices that shift a picture by a whole number of pixels along one
        axis."""
        most = float(round(size / 8))
        by = ops.floor(keras.random.uniform((batch, 1, 1), -most, most + 1.0, seed=self.random))
        place = ops.arange(size, dtype="float32")
        return ops.cast(ops.equal(place[None, :, None] + by, place[None, None, :]), "float32")

    def _follow(self) -> None:
        """Update the average with the weights before this update."""
        follow(self.ema, self.network, self.settings.ema, self.step)


def optimizer(training: DetailTraining) -> Adam:
    """Adam for both networks, without momentum as is usual in adversarial training; the learning
    rate falls to a tenth by a cosine."""
    s = training.settings
    rate = keras.optimizers.schedules.CosineDecay(s.learning_rate, s.epochs * s.steps, alpha=0.1)
    return Adam(rate, beta_1=0.0, beta_2=0.99)


def train_detail(
    pool: Pool,
    watched: Watched,
    settings: Detail,
    run: Run,
    *,
    guides: Sequence[keras.Model] = (),
    known: Sequence[bool] = (),
    start: Path | None = DETAIL_START,
    show: Show | None = None,
    callbacks: tuple[keras.callbacks.Callback, ...] = (),
) -> DetailResult:
    """Train on ``pool``, with checkpoints in ``run.folder``, and return the averaged network.

    If the networks in ``start`` have these sizes, the training begins with their weights.
    ``guides`` and ``known`` are those of :class:`DetailTraining`. ``show`` is called after each
    epoch with its number and the same faces, ``(N, H, W, 3) uint8``. A killed training
    continues from its last checkpoint with the same fingerprint. The training ends before its last
    epoch if :func:`knows_by_heart` is true. The processes that train a network together all call
    this function, with equal pictures. Raises :class:`DivergedError` if the loss is not finite, or
    if the network collapses: its pictures become alike, or their power far exceeds that of
    photographs."""
    height, width = pool.samples.shape[1:3]
    training, started = _prepared(settings, (height, width), guides, known, start)
    history = fit(
        training,
        pool.batches(settings),
        run,
        epochs=settings.epochs,
        callbacks=(_Watch(watched, show), *callbacks),
        is_over=knows_by_heart,
    )
    return DetailResult(
        training.ema, training.discriminator, history, len(pool.photographs), started
    )


def trained_together(
    settings: Detail,
    size: tuple[int, int],
    n_train: int,
    run: Run,
    *,
    guides: Sequence[keras.Model] = (),
    start: Path | None = DETAIL_START,
) -> DetailResult:
    """The result of :func:`train_detail` in other processes, from the last checkpoint in
    ``run.checkpoints``: for pictures of ``size`` (height, width), from ``n_train`` pictures."""
    training, started = _prepared(settings, size, guides, (), start)
    history = checkpoint.restore(run.checkpoints, training, run.fingerprint).history
    return DetailResult(training.ema, training.discriminator, history, n_train, started)


def _prepared(
    settings: Detail,
    size: tuple[int, int],
    guides: Sequence[keras.Model],
    known: Sequence[bool],
    start: Path | None,
) -> tuple[DetailTraining, bool]:
    """A compiled training, and whether it has the start weights."""
    seed_everything(settings.seed)
    height, width = size
    training = DetailTraining(settings, height, width, guides, known)
    started = start is not None and begin_with(training, start)
    training.compile(optimizer=optimizer(training), **compile_options())
    return training, started


def knows_by_heart(history: Sequence[Mapping[str, float]]) -> bool:
    """Whether the discriminator has memorised its pictures: the mean of ``overfitting`` (r_t) over
    the last epochs.

    Karras et al. (2020, arXiv 2006.06676) keep r_t at .6 by more augmentation. Above .6 the two
    eyes of painted faces became different (docs/experiments/0041)."""
    lately = [figures["overfitting"] for figures in history[-LATELY:]]
    return len(lately) == LATELY and float(np.mean(lately)) > BY_HEART


def save_start(network: DetailNetwork, discriminator: Discriminator, file: Path) -> None:
    """Write both networks' weights as float16, in the order of their variables, completely or not
    at all."""
    arrays = {f"network_{i}": w for i, w in enumerate(network.get_weights())}
    arrays |= {f"discriminator_{i}": w for i, w in enumerate(discriminator.get_weights())}
    with writing(file) as temporary, temporary.open("wb") as f:
        np.savez_compressed(
            f, allow_pickle=False, **{name: w.astype(np.float16) for name, w in arrays.items()}
        )


def begin_with(training: DetailTraining, file: Path) -> bool:
    """Give ``training`` the weights of :func:`save_start`. Returns False and changes nothing if
    they are of networks of other sizes."""
    with np.load(file, allow_pickle=False) as arrays:
        kept = {
            name: [
                arrays[f"{name}_{i}"] for i in range(sum(n.startswith(f"{name}_") for n in arrays))
            ]
            for name in NETWORKS
        }
    for name, weights in kept.items():
        if [w.shape for w in weights] != [tuple(w.shape) for w in getattr(training, name).weights]:
            return False
    for name, weights in kept.items():
        getattr(training, name).set_weights([w.astype(np.float32) for w in weights])
    training.ema.set_weights(training.network.get_weights())
    return True


def detail_sheet(
    generator: FaceGenerator,
    photographs: np.ndarray,
    values: np.ndarray,
    settings: Samples,
    columns: int = 12,
) -> bytes:
    """A JPEG of held-out photographs, their reconstructions and samples: the mean pictures, and
    below them the same with detail."""
    height, width = generator.nvae.settings.height, generator.nvae.settings.width
    photographs, values = photographs[:columns], values[:columns]
    # as in draw_watched: seeds that are not used in training
    seeds = settings.seed + SEED_OFFSET["detail"] - 1 - np.arange(columns)
    rows = [shrink(photographs, height, width)]
    for amount in (0.0, 1.0):
        rows.append(generator.reconstructions(photographs, values, amount))
    for amount in (0.0, 1.0):
        rows += generator.draw(
            seeds,
            np.resize(values, (columns, values.shape[1])),
            dataclasses.replace(settings, detail=amount),
        )
    title = "held out | rebuilt: mean, with detail | samples: mean, with detail"
    return contact_sheet(
        [p for row in rows for p in row],
        columns,
        cell=(width * 3 // 2, height * 3 // 2),
        title=title,
    )


class _Watch(keras.callbacks.Callback):
    """Adds metrics to the logs of each epoch, shows its grid, and ends a training that
    collapsed."""

    def __init__(self, watched: Watched, show: Show | None) -> None:
        super().__init__()
        self._show = show
        self._means, self._theirs = _diversity(watched.means), octaves(watched.photographs)
        maps = noise_maps(range(len(watched.means)), *watched.means.shape[1:3])
        self._input = np.concatenate([watched.means.astype(np.float32) / 255.0, maps], axis=-1)

    def on_train_begin(self, logs: Any = None) -> None:
        network = self.model.ema
        self._change = compiled(network, network)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        change = self._change(self._input)
        if not np.isfinite(change).all():
            return  # the loss is not finite either, which ends the training
        pictures = as_bytes(np.clip(self._input[..., :3] + change, 0.0, 1.0))
        pairs = list(enumerate(zip(octaves(pictures), self._theirs, strict=True), 1))
        power = {f"val_power_{k}": power_ratio(*pair) for k, pair in pairs}
        figures = power | {
            f"val_kurtosis_{k}": ours.kurtosis / theirs.kurtosis for k, (ours, theirs) in pairs
        }
        # For a single picture, or if all mean pictures are equal, diversity is not defined.
        figures["val_diversity"] = _diversity(pictures) / self._means if self._means > 0 else 1.0
        if logs is not None:
            logs.update(figures)  # so that they are in the checkpoints, the log and the curves
        if self._show:
            self._show(epoch + 1, pictures[:SHOWN])
        if not figures["val_diversity"] >= LEAST_DIVERSITY or max(power.values()) > MOST_POWER:
            measured = (
                f"diversity {figures['val_diversity']:.2f} of that of the means, power"
                f" {figures['val_power_1']:.2f} of that of photographs"
            )
            raise DivergedError(
                f"the detail network collapsed in epoch {epoch + 1} ({measured}): lower [detail]"
                " learning_rate; the network is not kept"
            )


def _diversity(pictures: np.ndarray) -> float:
    """The mean distance between the pictures ``(N, H, W, 3) uint8`` at a quarter of their size."""
    small = shrink(pictures, max(1, pictures.shape[1] // 4), max(1, pictures.shape[2] // 4))
    return mean_pairwise_distance(small.reshape(len(small), -1).astype(np.float32))
