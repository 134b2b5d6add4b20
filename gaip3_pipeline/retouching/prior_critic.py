"""Training of the critic of the prior on the encoder's posteriors of pictures, and ascent on its
logits."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
from keras import ops

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.metrics.classification import roc_auc, scores_and_labels
from gaip3_pipeline.models.backend import compile_options, gradient, seed_everything
from gaip3_pipeline.models.nvae.model import NVAE
from gaip3_pipeline.models.prior_critic import build_prior_critic
from gaip3_pipeline.models.storage import load_config, load_weights, save_config, save_weights
from gaip3_pipeline.sampling.draw import FaceGenerator
from gaip3_pipeline.settings import Critic
from gaip3_pipeline.training import checkpoint
from gaip3_pipeline.training.batches import ArrayBatches
from gaip3_pipeline.training.fit import fit
from gaip3_pipeline.training.optimizer import Adam, cosine_decay
from gaip3_pipeline.training.run import Examples, Run

DRAWS = 4  # of the posterior for each picture
STEPS, STEP = 20, 0.1  # steps of the ascent; size at fidelity .5, in units of the logit's gradient
BATCH = 256


@dataclass(frozen=True)
class PriorCritic:
    """A trained critic of the prior and the shapes of its latent groups."""

    model: keras.Model
    shapes: list[tuple[int, int, int]]
    _climb: Callable[[list[np.ndarray]], tuple[np.ndarray, list[np.ndarray]]] = field(init=False)

    def logits(self, noise: list[np.ndarray], conditions: np.ndarray) -> np.ndarray:
        """``(N, groups) float32``: for each group the log density ratio of latents of pictures to
        the prior."""
        return np.asarray(
            self.model.predict([*noise, *noise, conditions], batch_size=BATCH, verbose=0),
            np.float32,
        )

    def move(
        self, noise: Sequence[np.ndarray], conditions: np.ndarray, fidelity: float
    ) -> list[np.ndarray]:
        """``noise``, a list of ``(N, h, w, c)``, moved towards latents of pictures: 20 steps of
        gradient ascent on Σ_l log r_l − (1/f − 1) · ½ |ε − ε₀|², with fidelity f."""
        leash = 1.0 / max(fidelity, 1e-6) - 1.0
        size = 2 * fidelity * STEP
        moved = [e.astype(np.float32) for e in noise]
        for _ in range(STEPS):
            _, uphill = self._climb([*moved, conditions])
            moved = [
                e + size * (g - leash * (e - start))
                for e, g, start in zip(moved, uphill, noise, strict=False)
            ]
        return moved

    def __post_init__(self) -> None:
        levels = len(self.shapes)
        climb = gradient(
            lambda a: ops.sum(
                self.model([*a[:levels], *a[:levels], a[levels]], training=False), axis=1
            )
        )
        object.__setattr__(self, "_climb", climb)


@dataclass(frozen=True)
class PriorCriticResult:
    """``history``: figures per epoch; logits ``(N, groups) float32`` of one posterior draw of
    each picture and of one of the prior."""

    history: list[dict[str, float]]
    posterior_logits: np.ndarray
    prior_logits: np.ndarray
    split: np.ndarray


def train_prior_critic(
    nvae: NVAE,
    examples: Examples,
    settings: Critic,
    run: Run,
) -> PriorCriticResult:
    """Train the critic of the prior of ``nvae`` into ``run.folder`` on the pictures of split
    ``train``, and score all pictures.

    For each group, both sides have the same posterior draw of the groups above as context and
    differ only in the group's own latents. Raises ``ValueError`` without training pictures."""
    images, split = examples.images, np.asarray(examples.split)
    seen = split == "train"
    if not seen.any():
        raise ValueError(
            f"critic of the prior: none of the {len(seen)} pictures is in the training split"
        )
    levels, values = range(len(nvae.latent_shapes)), np.asarray(examples.values, np.float32)
    plain = FaceGenerator(nvae)
    draws = [plain.encoded(images[seen], values[seen], draw) for draw in range(DRAWS)]
    arrays = {str(level): np.concatenate([d[level] for d in draws]) for level in levels} | {
        "condition": np.tile(values[seen], (DRAWS, 1))
    }

    def against_prior(
        batch: dict[str, np.ndarray], generator: np.random.Generator
    ) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        posterior = [batch[str(level)] for level in levels]
        prior = [generator.standard_normal(e.shape, dtype=np.float32) for e in posterior]
        own = [np.concatenate(pair) for pair in zip(posterior, prior, strict=True)]
        twice = [np.concatenate([e, e]) for e in (*posterior, batch["condition"])]
        target = np.repeat([1.0, 0.0], len(batch["condition"])).astype(np.float32)
        return (*own, *twice), np.repeat(target[:, None], len(levels), axis=1)

    seed_everything(settings.seed)
    model = build_prior_critic(nvae.latent_shapes, len(ATTRIBUTES))
    batches = ArrayBatches(arrays, settings.batch_size, settings.seed, against_prior)
    model.compile(
        optimizer=Adam(
            cosine_decay(settings.learning_rate, len(batches), settings.epochs), beta_1=0.5
        ),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        **compile_options(),
    )
    history = fit(model, batches, run, epochs=settings.epochs)
    save_weights(model, run.folder)
    save_config(run.folder, {"shapes": nvae.latent_shapes, **dataclasses.asdict(settings)})
    checkpoint.discard(run.checkpoints)
    critic = PriorCritic(model, nvae.latent_shapes)
    one = plain.encoded(images, values, DRAWS)
    return PriorCriticResult(
        history,
        critic.logits(one, values),
        critic.logits(nvae.sample_noise(len(images), settings.seed), values),
        split,
    )


def prior_critic_figures(result: PriorCriticResult) -> dict[str, float | int]:
    """ROC AUC of posterior draws against the prior on the test split, of all groups together and
    ``auc_0``, ``auc_1`` … of each."""
    test = result.split == "test"
    posterior, prior = result.posterior_logits[test], result.prior_logits[test]
    groups = {
        f"auc_{i}": roc_auc(*scores_and_labels(posterior[:, i], prior[:, i]))
        for i in range(posterior.shape[1])
    }
    return {
        "n": len(posterior) + len(prior),
        "auc": roc_auc(*scores_and_labels(posterior.sum(axis=1), prior.sum(axis=1))),
        **groups,
    }


def load_prior_critic(folder: Path) -> PriorCritic:
    """The critic of the prior of ``folder``. Raises ``FileNotFoundError`` when there is none."""
    shapes = [tuple(shape) for shape in load_config(folder)["shapes"]]
    model = load_weights(build_prior_critic(shapes, len(ATTRIBUTES)), folder)
    model.compile(**compile_options())
    return PriorCritic(model, shapes)
