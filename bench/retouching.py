"""Comparison of the methods of retouching on one root, by measures that none of them optimises.

    python bench/retouching.py ROOT [--n 2000] [--methods transport ascent …] [--fidelity .5]
                               [--guidance 1.5] [--set step_size=.02 …]
                               [--makes network regression] [--out FOLDER]

Needs a refreshed root. Samples have seeds that are used nowhere else and conditions of the data.
They are drawn once and retouched by each method from the same latents. The results are evaluated by
the two judges (with real pictures on which they were not trained), by distances to all real
pictures, and, for the values, by the evaluators. Two baselines that do not move latents are
included: ``rejection`` draws other faces with the same values and keeps the guide's best,
``temperature`` draws at a lower temperature. Intervals are 95 % bootstrap intervals over samples
and pictures. Pictures before and after are written to FOLDER. Prints a line of JSON for each method
when it is finished, then a table; the last line is one JSON object with all methods.
"""

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import command_line, data_root, folder, print_result
from scipy.special import log_expit

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.distances import (
    frechet_distance,
    identity,
    pixel_features,
    random_features,
    reduction,
)
from gaip3_pipeline.evaluation.fresh_judges import (
    MAKES,
    SIZES,
    Make,
    Network,
    Regression,
    side_of,
    told_apart,
)
from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.imaging.contact_sheet import pairs
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.metrics.classification import roc_auc, scores_and_labels
from gaip3_pipeline.metrics.intervals import bootstrap_interval
from gaip3_pipeline.metrics.neighbours import mean_pairwise_distance, neighbourhoods
from gaip3_pipeline.models.nvae.model import NVAE
from gaip3_pipeline.retouching.aggregate_posterior import fit_aggregate_posterior
from gaip3_pipeline.retouching.methods import METHODS, Correction
from gaip3_pipeline.retouching.prior_critic import (
    load_prior_critic,
    prior_critic_figures,
    train_prior_critic,
)
from gaip3_pipeline.retouching.retoucher import RETOUCHED, Retoucher, Tools
from gaip3_pipeline.sampling.draw import by_row, load_face_generator, noise_of_seeds
from gaip3_pipeline.settings import NOISE_CONTRASTIVE, TRANSPORT, Retouch, Samples, load
from gaip3_pipeline.training.critic import critic_logits, load_critic, pictures_of_role
from gaip3_pipeline.training.regressor import load_regressor, predict_values
from gaip3_pipeline.training.run import Run
from gaip3_pipeline.training_data import final_images

SEEDS = 5_000_000  # seeds from here on are not shown, trained on or measured elsewhere
BOOTSTRAPS = 200

Pictures = tuple[np.ndarray, np.ndarray]  # (N, H, W, 3) uint8, and evaluations (N,)


def rejection(
    tools: Tools, settings: Retouch, samples: Samples, seeds: np.ndarray, values: np.ndarray
) -> Pictures:
    """For each sample of ``seeds (N,)``, the best by the guide's logit and the change of the
    values, among the sample itself and 2 · fidelity · steps others of the same ``values (N,
    5)``."""

    def scored(draw: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        drawn = tools.generator.draw(seeds + draw * len(seeds), values, samples)
        pictures = np.concatenate(list(drawn))
        measured = [predict_values(r, [pictures]) for r in tools.regressors]
        return pictures, critic_logits(tools.guide, pictures), np.concatenate(measured, axis=1)

    best, logits, first = scored(0)
    highest = log_expit(logits)
    others = round(2 * settings.fidelity * settings.steps)
    for draw in range(1, 1 + others):
        pictures, logits, measured = scored(draw)
        change = np.square(measured - first).sum(axis=1)
        objective = log_expit(logits) - settings.values_weight * change
        better = objective > highest
        best, highest = (
            np.where(by_row(better, best), pictures, best),
            np.maximum(objective, highest),
        )
    return best, np.full(len(seeds), 1 + others)


def temperature(
    tools: Tools, settings: Retouch, samples: Samples, seeds: np.ndarray, values: np.ndarray
) -> Pictures:
    """The samples of ``seeds (N,)`` and ``values (N, 5)``, drawn at the temperature times (1 -
    fidelity / 2)."""
    colder = dataclasses.replace(
        samples, temperature=samples.temperature * (1.0 - settings.fidelity / 2)
    )
    drawn = tools.generator.draw(seeds, values, colder)
    return np.concatenate(list(drawn)), np.ones(len(seeds), int)


BASELINES = {"rejection": rejection, "temperature": temperature}
WAYS = [*METHODS, *BASELINES]


class Measure:
    """Figures of sets of samples against one set of real pictures."""

    def __init__(self, root: DataRoot, n: int, makes: Sequence[str]) -> None:
        settings = load(root)
        data = final_images(root, settings)
        self.generator, self.detail = load_face_generator(root), settings.samples.detail
        unseen = pictures_of_role(data.table.bucket.to_numpy(), "guide")  # not seen by judges
        self.real, self._given, self.unseen = data.images, data.values, data.images[unseen]
        self.rebuilt = self.generator.reconstructions(self.unseen, data.values[unseen], self.detail)
        held_out = (data.table.split != "train").to_numpy()
        _, groups = np.unique(data.table.original[held_out], return_inverse=True)
        size = self.generator.nvae.settings
        photographs = shrink(data.images[held_out], size.height, size.width)
        self._photographs = side_of(photographs, groups)
        known: dict[str, Make] = {"network": Network(), "regression": Regression()}
        self._makes = [known[name] for name in makes]
        self.judge, self.second = load_critic(root.judge), load_critic(root.reconstruction_judge)
        self.evaluators = [load_regressor(root.evaluator(a)) for a in ATTRIBUTES]
        rows = np.random.default_rng(SEEDS).integers(0, len(data.values), n)
        self.values = data.values[rows]
        self._features = {"random": random_features(), "pixels": pixel_features}
        raw = {name: of(self.real) for name, of in self._features.items()}
        self._reduce = {name: reduction(f, 64) for name, f in raw.items()}
        self._raw = raw
        self.real_logits = {
            "judge": critic_logits(self.judge, self.unseen),
            "second": critic_logits(self.second, self.rebuilt),
        }

    def of(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Features, logits and errors of one set of pictures, from which :meth:`figures` are
        made."""
        parts = {name: of(images) for name, of in self._features.items()}
        parts["judge"] = critic_logits(self.judge, images)
        parts["second"] = critic_logits(self.second, images)
        parts["errors"] = np.abs(self._measured(images) - self.values)
        return parts | {"fresh": self._fresh(images)}

    def _fresh(self, images: np.ndarray) -> np.ndarray:
        """``(3,)``: AUC of held-out photographs against as many samples at each size, the mean over
        the makes of fresh judges."""
        real = self._photographs
        n = min(len(images), len(real.groups))
        drawn = side_of(images[:n], real.groups.max() + 1 + np.arange(n))
        aucs = [
            [told_apart(real, drawn, make, divisor, 0) for make in self._makes]
            for divisor in SIZES.values()
        ]
        return np.mean(aucs, axis=1)

    def _measured(self, images: np.ndarray) -> np.ndarray:
        return np.stack([predict_values(r, [images])[:, 0] for r in self.evaluators], axis=1)

    def ceiling(self) -> dict[str, float]:
        """Figures of reconstructions of all pictures, the best that samples could reach if their
        latents had the distribution of the encoder's; with ``diversity_real`` of the pictures."""
        rebuilt = self.generator.reconstructions(self.real, self._given, self.detail)
        parts = {name: of(rebuilt) for name, of in self._features.items()}
        reduced = {
            name: (reduce(parts[name]), reduce(self._raw[name]))
            for name, reduce in self._reduce.items()
        }
        return {
            **{f"fd_{name}": frechet_distance(*pair) for name, pair in reduced.items()},
            "coverage": neighbourhoods(parts["random"], self._raw["random"])["coverage"],
            "diversity": mean_pairwise_distance(parts["random"]),
            "mae": float(np.abs(self._measured(rebuilt) - self._given).mean()),
            "diversity_real": mean_pairwise_distance(self._raw["random"]),
        }

    def figures(
        self, after: dict[str, np.ndarray], before: dict[str, np.ndarray]
    ) -> dict[str, float | list[float]]:
        """Figures of ``after`` and their change from ``before``, of the same samples, with
        intervals."""
        out: dict[str, float | list[float]] = {}
        generator = np.random.default_rng(0)
        n, n_real = len(after["judge"]), len(self.real)
        for name in ("judge", "second"):
            gain = after[name] - before[name]
            out[f"{name}_auc"] = roc_auc(*scores_and_labels(self.real_logits[name], after[name]))
            out[f"{name}_logit"] = float(after[name].mean())
            out[f"{name}_gain"] = [float(gain.mean()), *bootstrap_interval(np.mean, gain)]
        drawn = [
            (generator.integers(0, n, n), generator.integers(0, n_real, n_real))
            for _ in range(BOOTSTRAPS)
        ]
        for name in ("random", "pixels"):
            reduce, real = self._reduce[name], self._reduce[name](self._raw[name])
            a, b = reduce(after[name]), reduce(before[name])
            distance = frechet_distance(a, real)
            change = [
                frechet_distance(a[i], real[j]) / frechet_distance(b[i], real[j]) - 1
                for i, j in drawn
            ]
            out[f"fd_{name}"] = distance
            out[f"fd_{name}_change"] = [
                distance / frechet_distance(b, real) - 1,
                *np.quantile(change, (0.025, 0.975)).tolist(),
            ]
        out["coverage"] = neighbourhoods(after["random"], self._raw["random"])["coverage"]
        out["diversity"] = mean_pairwise_distance(after["random"])
        out |= identity(before["random"], after["random"])
        fresh = zip(SIZES, after["fresh"].tolist(), strict=True)
        out |= {f"fresh_{size}": auc for size, auc in fresh}
        out["mae"] = float(after["errors"].mean())
        worse = after["errors"] - before["errors"]
        out["mae_change"] = [
            float(worse.mean()),
            *bootstrap_interval(np.mean, worse.mean(axis=1)),
        ]
        return out


def main() -> None:
    """Draw, retouch in every way, measure, report."""
    parser = command_line(__doc__)
    parser.add_argument("root", type=data_root)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--methods", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--fidelity", type=float, nargs="+", default=[0.5])
    parser.add_argument("--guidance", type=float)
    parser.add_argument(
        "--set", nargs="*", default=[], help="settings of [retouch], such as step_size=0.02"
    )
    parser.add_argument("--makes", nargs="+", choices=MAKES, default=MAKES, help="of fresh judges")
    parser.add_argument("--out", type=folder)
    a = parser.parse_args()
    settings = load(a.root)
    pairs_given = (pair.split("=") for pair in a.set)
    changes = {k: type(getattr(settings.retouch, k))(v) for k, v in pairs_given}
    base = dataclasses.replace(settings.retouch, **changes)
    guidance = settings.samples.guidance if a.guidance is None else a.guidance
    measure = Measure(a.root, a.n, a.makes)
    guide, regressors = load_critic(a.root.critic), [load_regressor(a.root.control_regressor)]
    table = pd.DataFrame(measure.values, columns=list(ATTRIBUTES)).assign(
        seed=SEEDS + np.arange(a.n),
        temperature=1.0,
        guidance=guidance,
        detail=settings.samples.detail,
    )
    seeds, temperature = table.seed.to_numpy(), settings.samples.temperature
    moved = measure.generator.latents(seeds, measure.values, temperature)
    plain = [temperature * e for e in noise_of_seeds(measure.generator.nvae, seeds)]
    rows: list[dict[str, Any]] = []
    before = None
    samples = dataclasses.replace(settings.samples, guidance=guidance)
    drawn = np.zeros(0, np.uint8)
    if not BASELINES.keys().isdisjoint(a.methods):
        drawn = np.concatenate(list(measure.generator.draw(seeds, measure.values, samples)))
    for name in a.methods:
        correction = _correction(a.root, measure.generator.nvae, name)
        tools = Tools(measure.generator, guide, regressors, correction)
        # A correction of the prior starts from latents of the prior, all others from those of
        # samples.
        noise = plain if correction else moved
        for fidelity in a.fidelity:
            if name in BASELINES:
                chosen = dataclasses.replace(base, fidelity=fidelity)
                baseline = partial(BASELINES[name], tools, chosen, samples)
                baseline(seeds[:1], measure.values[:1])  # compiles
                start = time.perf_counter()
                was, (after, evaluations) = drawn, baseline(seeds, measure.values)
                changed = int((after != was).any(axis=(1, 2, 3)).sum())
            else:
                chosen = dataclasses.replace(base, method=name, fidelity=fidelity)
                retoucher, few = Retoucher(tools, chosen), chosen.batch_size
                retoucher([e[:few] for e in noise], table[:few])  # compiles
                start = time.perf_counter()
                result = retoucher(noise, table)
                was, after, evaluations = result.before, result.after, result.evaluations
                changed = result.reasons.count(RETOUCHED)
            seconds = time.perf_counter() - start
            if before is None:
                before = measure.of(was)
                where = "the prior" if correction else "samples"
                print(f"before: latents of {where}", flush=True)
                rows.append({"way": "as sampled", **measure.figures(before, before)})
                print_result(rows[-1])
            figures = measure.figures(measure.of(after), before)
            cost = {
                "evaluations": float(evaluations.mean()),
                "ms_per_image": 1e3 * seconds / a.n,
            }
            kept = {"retouched": changed, "n": a.n}
            rows.append({"way": f"{name} {fidelity:g}", **figures, **cost, **kept})
            print_result(rows[-1])
            if a.out:
                change = np.abs(after.astype(int) - was).mean(axis=(1, 2, 3))
                some = np.random.default_rng(0).permutation(a.n)[:24]
                most = np.argsort(-change)[:24]
                for end, shown in (("", some), ("_most", most)):
                    sheet = pairs(list(was[shown]), list(after[shown]))
                    (a.out / f"{name}_{fidelity:g}{end}.jpg").write_bytes(sheet)
    rows.append({"way": "reconstructions of the data", **measure.ceiling()})
    print("\n" + _shown(rows))
    print_result({"root": a.root.path.name, "n": a.n, "guidance": guidance, "rows": rows})


def _correction(root: DataRoot, model: NVAE, method: str) -> Correction | None:
    """The correction of the prior that ``method`` needs, fitted here; None for other methods."""
    if method not in (TRANSPORT, NOISE_CONTRASTIVE):
        return None
    settings, started = load(root), time.perf_counter()
    data = final_images(root, settings)
    if method == TRANSPORT:
        split = data.table.split.to_numpy()
        found, figures = fit_aggregate_posterior(model, data.images, data.values, split)
        print("aggregate posterior", figures, f"{time.perf_counter() - started:.0f} s", flush=True)
        return found
    with tempfile.TemporaryDirectory() as name:
        kept = Path(name)
        result = train_prior_critic(model, data.examples, settings.critic, Run(kept, "bench"))
        seconds = time.perf_counter() - started
        print("critic of the prior", prior_critic_figures(result), f"{seconds:.0f} s", flush=True)
        return load_prior_critic(kept)


def _shown(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    columns = [
        "second_auc",
        "judge_auc",
        "judge_logit",
        "fd_random",
        "fd_pixels",
        "coverage",
        "diversity",
        "fresh_full",
        "fresh_half",
        "fresh_quarter",
        "mae",
        "identity",
        "recognised",
        "ms_per_image",
    ]
    lines = ["| way | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [row["way"], *(f"{row[c]:.3g}" if c in row else "" for c in columns)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
