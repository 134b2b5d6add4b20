"""Which latent groups are drawn badly, and which density fits the latents of pictures better.

    python bench/prior.py ROOT [--steps 4000] [--width 512]

Needs nvae_weights and aggregate_posterior of ROOT. Prints two tables; the last line is one JSON
object.

1. One latent group at a time. Held-out pictures are encoded and decoded with their values, once
   unchanged and once with one group drawn from the aggregate posterior. A regression
   (evaluation/fresh_judges.py) separates each set from the pictures, at a quarter of the size,
   where
   blur has no effect. The group whose drawing increases the AUC most is drawn worst.
2. The mean log density of held-out latents above the prior's, in nats per picture, for three
   densities: the Gaussian of each group given the values, which is in use; one Gaussian of all
   groups
   together; and a flow that starts from the first, trained by conditional flow matching (Lipman et
   al. 2023, arXiv 2210.02747). The flow's density uses Hutchinson's estimator of the divergence
   (Grathwohl et al. 2019, arXiv 1810.01367) and is reported after each quarter of its steps.
"""

import keras
import numpy as np
from common import command_line, data_root, print_result
from keras import layers, ops
from sklearn.covariance import ledoit_wolf

from gaip3_pipeline.evaluation.fresh_judges import SIZES, Regression, side_of, told_apart
from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.models.aggregate_posterior import load_aggregate_posterior, with_one
from gaip3_pipeline.models.backend import compile_options, gradient
from gaip3_pipeline.models.nvae.model import load_nvae
from gaip3_pipeline.sampling.draw import FaceGenerator, as_bytes
from gaip3_pipeline.settings import load
from gaip3_pipeline.training_data import final_images

DRAWS, SEEDS, BATCH = 3, 3, 128
PARTS, MIDPOINTS, PROBES = 4, 24, 4


def main() -> None:
    """Measure both, report."""
    parser = command_line(__doc__)
    parser.add_argument("root", type=data_root)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--width", type=int, default=512)
    a = parser.parse_args()
    data = final_images(a.root, load(a.root))
    learned = (data.table.split == "train").to_numpy()
    n, n_train = int((~learned).sum()), int(learned.sum())
    posterior = load_aggregate_posterior(a.root.aggregate_posterior)
    generator = FaceGenerator(load_nvae(a.root.nvae), posterior)
    _, groups = np.unique(data.table.original[~learned], return_inverse=True)
    by_way = by_group(generator, data.images[~learned], groups, data.values[~learned])
    print(f"\n{'redrawn':<16} AUC at a quarter, of {n} held-out pictures")
    for name, auc in by_way.items():
        print(f"{name:<16} {auc:.3f}", flush=True)
    nats = densities(generator, data.images, data.values, learned, a.steps, a.width)
    print(f"\n{'density':<24} nats, held out    nats, learned")
    for name, (held_out, seen) in nats.items():
        print(f"{name:<24} {held_out:13.1f} {seen:16.1f}")
    print_result(
        {"root": a.root.path.name, "n": n, "n_train": n_train, "auc": by_way, "nats": nats}
    )


def by_group(
    generator: FaceGenerator, held_out: np.ndarray, groups_of: np.ndarray, values: np.ndarray
) -> dict[str, float]:
    """AUC of pictures against their reconstructions, against those with one group drawn, and
    against those with all groups drawn."""
    n = len(values)
    own = generator.encoded(held_out, values)
    drawn = generator.latents(9_000_000 + np.arange(n), values)
    shapes = ["×".join(map(str, shape)) for shape in generator.nvae.latent_shapes]
    ways: dict[str, list[int]] = {"none": []}
    ways |= {shape: [group] for group, shape in enumerate(shapes)}
    ways["all"] = list(range(len(own)))
    nvae, quarter = generator.nvae.settings, SIZES["quarter"]
    real, regression = side_of(shrink(held_out, nvae.height, nvae.width), groups_of), Regression()
    by_way = {}
    for name, groups in ways.items():
        latents = [drawn[g] if g in groups else own[g] for g in range(len(own))]
        fake = side_of(as_bytes(generator.means(latents, values)), groups_of)
        aucs = [told_apart(real, fake, regression, quarter, seed) for seed in range(SEEDS)]
        by_way[name] = float(np.mean(aucs))
    return by_way


def densities(
    generator: FaceGenerator,
    images: np.ndarray,
    values: np.ndarray,
    learned: np.ndarray,
    steps: int,
    width: int,
) -> dict[str, tuple[float, float]]:
    """For each density the mean nats above the prior's, of held-out and of training pictures."""
    posterior = generator.posterior
    assert posterior is not None
    draws = [generator.encoded(images, values, draw) for draw in range(DRAWS)]
    now = np.mean([posterior.log_density_gain(d, values) for d in draws], axis=0)
    found = {"a Gaussian each, in use": _both(now, learned)}
    flat = np.stack([_in_rows(d) for d in draws]).astype(np.float64)
    found["one Gaussian of all"] = _both(_joint(flat, values, learned), learned)
    white = np.stack([_in_rows(posterior.moved_back(d, values)) for d in draws])
    flow = _flow(white.shape[-1], width)
    for part in range(PARTS):
        _train(flow, white[:, learned], values[learned], steps // PARTS, part)
        gain = now + log_density_gain(flow, white[0], values)
        found[f"and a flow, {(part + 1) * (steps // PARTS):,} steps"] = _both(gain, learned)
    return found


def _in_rows(latents: list[np.ndarray]) -> np.ndarray:
    """``(N, k)``: all latents of each picture, concatenated."""
    return np.concatenate([level.reshape(len(level), -1) for level in latents], axis=1)


def _both(nats: np.ndarray, learned: np.ndarray) -> tuple[float, float]:
    return float(nats[~learned].mean()), float(nats[learned].mean())


def _joint(flat: np.ndarray, values: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """Nats of a Gaussian of all groups, with a mean linear in the values and a covariance shrunk as
    in ``fit_aggregate_posterior``."""
    rows = np.concatenate(list(flat[:, learned]))
    given = with_one(np.tile(values[learned], (len(flat), 1)))
    offset = np.linalg.lstsq(given, rows, rcond=1e-3)[0]
    rest = rows - given @ offset
    shrinkage = float(ledoit_wolf(rest[: int(learned.sum())], assume_centered=True)[1])
    ball = (rest**2).mean() * np.eye(rest.shape[1])
    covariance = (1 - shrinkage) * rest.T @ rest / len(rest) + shrinkage * ball
    inverse, volume = np.linalg.inv(covariance), np.linalg.slogdet(covariance)[1]
    away = flat - with_one(values) @ offset
    distance = np.einsum("dni,ij,dnj->dn", away, inverse, away)
    return np.mean(0.5 * ((flat**2).sum(axis=-1) - distance - volume), axis=0)


def _flow(k: int, width: int) -> keras.Model:
    """A network for the velocity at a place ``(B, k)`` and a time ``(B, 1)``, given values ``(B,
    5)``."""
    place, time, values = keras.Input((k,)), keras.Input((1,)), keras.Input((5,))
    turns = [f(np.pi * m * time) for m in (0.5, 1, 2, 4) for f in (ops.sin, ops.cos)]
    waves = ops.concatenate(turns, axis=1)
    context = layers.Dense(width, activation="silu")(ops.concatenate([time, waves, values], axis=1))
    h = layers.Dense(width)(place) + context
    for _ in range(2):
        step = layers.Dense(width, activation="silu")(layers.LayerNormalization()(h))
        step = layers.Dropout(0.1)(step)
        h = h + layers.Dense(width)(step) + layers.Dense(width)(context)
    velocity = layers.Dense(k, kernel_initializer="zeros")(layers.LayerNormalization()(h))
    model = keras.Model([place, time, values], velocity)
    model.compile(keras.optimizers.AdamW(3e-4, weight_decay=1e-2), "mse", **compile_options())
    return model


def _train(flow: keras.Model, white: np.ndarray, values: np.ndarray, steps: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        rows = generator.integers(0, white.shape[1], BATCH)
        there = white[generator.integers(0, len(white), BATCH), rows]
        here = generator.standard_normal(there.shape, np.float32)
        time = generator.random((BATCH, 1), np.float32)
        between = (1 - time) * here + time * there
        flow.train_on_batch([between, time, values[rows]], there - here)


def log_density_gain(flow: keras.Model, white: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``(N,)`` nats of ``white (N, k)`` above the standard normal density from which the flow
    starts, integrated from time 1 back to 0 by the midpoint rule."""
    n, generator = len(white), np.random.default_rng(0)
    along = gradient(lambda a: ops.sum(flow([a[0], a[1], a[2]], training=False) * a[3], axis=1))
    place, volume = white.astype(np.float32), np.zeros(n)
    for step in range(MIDPOINTS):
        size = 1.0 / MIDPOINTS
        time = np.full((n, 1), 1.0 - (step + 0.5) * size, np.float32)
        before = np.full((n, 1), 1.0 - step * size, np.float32)
        middle = place - size / 2 * flow.predict_on_batch([place, before, values])
        for _ in range(PROBES):
            probe = generator.choice([-1.0, 1.0], place.shape).astype(np.float32)
            _, (moved, *_) = along([middle, time, values, probe])
            volume += size * (moved * probe).sum(axis=1) / PROBES
        place = place - size * flow.predict_on_batch([middle, time, values])
    end, begin = (np.square(x, dtype=np.float64).sum(axis=1) for x in (white, place))
    return 0.5 * (end - begin) - volume


if __name__ == "__main__":
    main()
