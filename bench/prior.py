"""Where latents should be drawn: what is wrong with those drawn now, group by group, and which density fits latents of pictures best.

    python bench/prior.py ROOT [--steps 4000] [--width 512]

Needs nvae_weights and aggregate_posterior of ROOT. Two tables, and one line of JSON at the end.

1. One latent group at a time. Held-out pictures are encoded and decoded with their values, once as they are and once with one group
   drawn from the aggregate posterior instead. A regression (evaluation/fresh_judges.py) tells each set from the pictures themselves,
   at a quarter of the size, where blur does not count: the group whose drawing raises its AUC most is the one that draws badly.
2. Mean log density of held-out latents above the prior's, in nats for each picture: the Gaussian of each group given the values, that is
   in use; one Gaussian of all groups together; a flow trained by conditional flow matching (Lipman et al. 2023, arXiv 2210.02747) from
   the first, its density by Hutchinson's estimator of the divergence (Grathwohl et al. 2019, arXiv 1810.01367), after each quarter
   of its steps.
"""

import argparse
import json
import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from sklearn.covariance import ledoit_wolf

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gaip3_pipeline.evaluation.fresh_judges import SIZES, Regression, side_of, told_apart
from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.layout import DataRoot
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--width", type=int, default=512)
    a = parser.parse_args()
    root = DataRoot(a.root.resolve())
    data = final_images(root, load(root))
    learned = (data.table.split == "train").to_numpy()
    generator = FaceGenerator(load_nvae(root.nvae), load_aggregate_posterior(root.aggregate_posterior))
    _, groups = np.unique(data.table.original[~learned], return_inverse=True)
    told = by_group(generator, data.images[~learned], groups, data.values[~learned])
    print(f"\n{'redrawn':<16} AUC at a quarter, of {int((~learned).sum())} held-out pictures")
    for name, auc in told.items():
        print(f"{name:<16} {auc:.3f}", flush=True)
    nats = densities(generator, data.images, data.values, learned, a.steps, a.width)
    print(f"\n{'density':<24} nats, held out    nats, learned")
    for name, (held_out, seen) in nats.items():
        print(f"{name:<24} {held_out:13.1f} {seen:16.1f}")
    print(json.dumps({"root": root.path.name, "n": int((~learned).sum()), "n_train": int(learned.sum()), "auc": told, "nats": nats}))


def by_group(generator: FaceGenerator, held_out: np.ndarray, groups_of: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """AUC against the pictures of their reconstructions, of those with one group drawn, and of those with all drawn."""
    n = len(values)
    own = generator.encoded(held_out, values)
    drawn = generator.latents(9_000_000 + np.arange(n), values)
    shapes = ["×".join(map(str, shape)) for shape in generator.nvae.latent_shapes]
    ways: dict[str, list[int]] = {"none": [], **{shape: [group] for group, shape in enumerate(shapes)}, "all": list(range(len(own)))}
    nvae = generator.nvae.settings
    real, regression = side_of(shrink(held_out, nvae.height, nvae.width), groups_of), Regression()
    told = {}
    for name, groups in ways.items():
        means = generator.means([drawn[g] if g in groups else own[g] for g in range(len(own))], values)
        fake = side_of(as_bytes(means), groups_of)
        told[name] = float(np.mean([told_apart(real, fake, regression, SIZES["quarter"], seed) for seed in range(SEEDS)]))
    return told


def densities(
    generator: FaceGenerator, images: np.ndarray, values: np.ndarray, learned: np.ndarray, steps: int, width: int
) -> dict[str, tuple[float, float]]:
    """Nats above the prior's density of held-out and of learned pictures, for each density."""
    posterior = generator.posterior
    assert posterior is not None
    draws = [generator.encoded(images, values, draw) for draw in range(DRAWS)]
    now = np.mean([posterior.log_density_gain(d, values) for d in draws], axis=0)
    found = {"a Gaussian each, in use": _both(now, learned)}
    flat = np.stack([np.concatenate([e.reshape(len(values), -1) for e in d], axis=1) for d in draws]).astype(np.float64)
    found["one Gaussian of all"] = _both(_joint(flat, values, learned), learned)
    whitened = [posterior.moved_back(d, values) for d in draws]
    white = np.stack([np.concatenate([e.reshape(len(values), -1) for e in d], axis=1) for d in whitened])
    flow = _flow(white.shape[-1], width)
    for part in range(PARTS):
        _train(flow, white[:, learned], values[learned], steps // PARTS, part)
        gain = now + log_density_gain(flow, white[0], values)
        found[f"and a flow, {(part + 1) * (steps // PARTS):,} steps"] = _both(gain, learned)
    return found


def _both(nats: np.ndarray, learned: np.ndarray) -> tuple[float, float]:
    return float(nats[~learned].mean()), float(nats[learned].mean())


def _joint(flat: np.ndarray, values: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """Nats of a Gaussian of all groups, its mean linear in the values, its covariance shrunk as that in use."""
    rows = np.concatenate(list(flat[:, learned]))
    given = with_one(np.tile(values[learned], (len(flat), 1)))
    offset = np.linalg.lstsq(given, rows, rcond=1e-3)[0]
    rest = rows - given @ offset
    shrinkage = float(ledoit_wolf(rest[: int(learned.sum())], assume_centered=True)[1])
    covariance = (1 - shrinkage) * rest.T @ rest / len(rest) + shrinkage * (rest**2).mean() * np.eye(rest.shape[1])
    inverse, volume = np.linalg.inv(covariance), np.linalg.slogdet(covariance)[1]
    away = flat - with_one(values) @ offset
    return np.mean(0.5 * ((flat**2).sum(axis=-1) - np.einsum("dni,ij,dnj->dn", away, inverse, away) - volume), axis=0)


def _flow(k: int, width: int) -> keras.Model:
    """The velocity of a place ``(B, k)`` at a time ``(B, 1)`` given values ``(B, 5)``."""
    place, time, values = keras.Input((k,)), keras.Input((1,)), keras.Input((5,))
    waves = ops.concatenate([f(np.pi * m * time) for m in (0.5, 1, 2, 4) for f in (ops.sin, ops.cos)], axis=1)
    said = layers.Dense(width, activation="silu")(ops.concatenate([time, waves, values], axis=1))
    h = layers.Dense(width)(place) + said
    for _ in range(2):
        step = layers.Dropout(0.1)(layers.Dense(width, activation="silu")(layers.LayerNormalization()(h)))
        h = h + layers.Dense(width)(step) + layers.Dense(width)(said)
    model = keras.Model([place, time, values], layers.Dense(k, kernel_initializer="zeros")(layers.LayerNormalization()(h)))
    model.compile(keras.optimizers.AdamW(3e-4, weight_decay=1e-2), "mse", **compile_options())
    return model


def _train(flow: keras.Model, white: np.ndarray, values: np.ndarray, steps: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        rows = generator.integers(0, white.shape[1], BATCH)
        there = white[generator.integers(0, len(white), BATCH), rows]
        here, time = generator.standard_normal(there.shape, np.float32), generator.random((BATCH, 1), np.float32)
        flow.train_on_batch([(1 - time) * here + time * there, time, values[rows]], there - here)


def log_density_gain(flow: keras.Model, white: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``(N,)`` nats of ``white (N, k)`` above the standard normal density that the flow begins with, by midpoints from 1 back to 0."""
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
    return 0.5 * ((white.astype(np.float64) ** 2).sum(axis=1) - (place.astype(np.float64) ** 2).sum(axis=1)) - volume


if __name__ == "__main__":
    main()
