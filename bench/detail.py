"""Training of the detail network of a root's generator, measured at regular steps.

    python bench/detail.py ROOT [--steps 6000] [--every 500] [--fresh] [--set learning_rate=2e-4 …]
                           [--save-start FILE] [--out FOLDER]

Needs nvae_weights, aggregate_posterior, control_regressor and evaluator_* of ROOT. Figures against
steps: power and kurtosis of each octave compared with held-out pictures, share of noise, agreement
of reconstructions with their photographs, AUC of a fresh judge (regression, one seed), pictures per
second, peak memory. --fresh starts with random weights instead of the packaged ones,
gaip3_pipeline/models/detail_start.npz, which are made by

    make demo && python bench/detail.py demo --fresh --steps 3500 --save-start FILE

Prints a table; the last line is one JSON object. Sheets of forty faces are written to FOLDER: mean
pictures, with detail, photographs.
"""

import dataclasses
import resource
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from common import command_line, data_root, folder, print_result

from gaip3_pipeline.evaluation.distances import sliced_wasserstein
from gaip3_pipeline.evaluation.fresh_judges import SIZES, Regression, side_of, told_apart
from gaip3_pipeline.evaluation.samples import (
    FORTY,
    SampleEvaluation,
    detail_figures,
    draw_fresh,
    faces_sheet,
)
from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.layout import DETAIL_START
from gaip3_pipeline.models.aggregate_posterior import load_aggregate_posterior
from gaip3_pipeline.models.nvae.model import load_nvae
from gaip3_pipeline.sampling.draw import FaceGenerator
from gaip3_pipeline.settings import Samples, load
from gaip3_pipeline.training import detail
from gaip3_pipeline.training.regressor import load_network
from gaip3_pipeline.training.run import Run
from gaip3_pipeline.training_data import final_images, known_values

MOST = 400
SHOWN = (
    "power_1",
    "power_2",
    "kurtosis_1",
    "kurtosis_1_real",
    "noise_1",
    "agreement_1",
    "swd",
    *(f"auc_{size}" for size in SIZES),
    "overfitting",
)


class Watch(keras.callbacks.Callback):
    """Measures the averaged network after each epoch; this does not count as training time."""

    def __init__(
        self,
        generator: FaceGenerator,
        values: np.ndarray,
        settings: Samples,
        plain: np.ndarray,
        held_out: tuple[np.ndarray, np.ndarray, np.ndarray],
        out: Path | None,
    ) -> None:
        super().__init__()
        self._generator, self._values, self._settings = generator, values, settings
        self._plain, self._held_out, self._out = plain, held_out, out
        self._real, self._judge = side_of(held_out[0], held_out[2]), Regression()
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.seconds += time.perf_counter() - self._started
        shown = FaceGenerator(self._generator.nvae, self._generator.posterior, self.model.ema)
        photographs, values, groups = self._held_out
        drawn, _ = draw_fresh(shown, self._values, len(self._plain), self._settings)
        figures = detail_figures(shown, photographs, values, drawn, self._plain, self._settings)
        fake = side_of(drawn, groups.max() + 1 + np.arange(len(drawn)))
        for size, divisor in SIZES.items():
            figures[f"auc_{size}"] = told_apart(self._real, fake, self._judge, divisor, 0)
        figures["swd"] = sliced_wasserstein(drawn, photographs[: len(drawn)])
        figures["overfitting"] = (logs or {})["overfitting"]
        steps = (epoch + 1) * self.params["steps"]
        self.rows.append({"steps": steps, "seconds": self.seconds, **figures})
        line = "  ".join(f"{name} {figures[name]:.3f}" for name in SHOWN)
        print(f"{steps:6,} steps {self.seconds:6.0f} s  {line}", flush=True)
        if self._out:
            forty = (drawn[:FORTY], self._plain[:FORTY], photographs[:FORTY])
            fresh = SampleEvaluation({}, *forty, nearest=drawn[:0], distance=np.zeros(0))
            (self._out / f"{steps:06d}.jpg").write_bytes(faces_sheet(fresh))


def main() -> None:
    """Draw, train, measure, report."""
    parser = command_line(__doc__)
    parser.add_argument("root", type=data_root)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument(
        "--set", nargs="*", default=[], help="settings of [detail], such as learning_rate=2e-4"
    )
    parser.add_argument("--save-start", type=Path)
    parser.add_argument("--out", type=folder)
    a = parser.parse_args()
    settings = load(a.root)
    pairs = (pair.split("=") for pair in a.set)
    changes = {k: type(getattr(settings.detail, k))(v) for k, v in pairs}
    section = dataclasses.replace(
        settings.detail, epochs=max(1, a.steps // a.every), steps=a.every, **changes
    )
    data = final_images(a.root, settings)
    learned = (data.table.split == "train").to_numpy()
    posterior = load_aggregate_posterior(a.root.aggregate_posterior)
    generator = FaceGenerator(load_nvae(a.root.nvae), posterior)
    height, width = generator.nvae.settings.height, generator.nvae.settings.width
    held_out, values = shrink(data.images[~learned], height, width), data.values[~learned]
    _, groups = np.unique(data.table.original[~learned], return_inverse=True)
    n = min(MOST, len(held_out))
    _, plain = draw_fresh(generator, data.values, n, settings.samples)
    started = time.perf_counter()
    pool = detail.draw_pool(
        generator,
        data.images[learned],
        data.values[learned],
        settings.samples,
        detail.pictures_seen(section),
    )
    watched = detail.draw_watched(generator, data.images[~learned], values, settings.samples)
    seconds = {"means": time.perf_counter() - started}
    seen = (held_out, values, groups)
    watch = Watch(generator, data.values, settings.samples, plain, seen, a.out)
    with tempfile.TemporaryDirectory() as kept:
        result = detail.train_detail(
            pool,
            watched,
            section,
            Run(Path(kept), "bench"),
            guides=[load_network(a.root.control_regressor)],
            known=list(known_values(a.root).values()),
            start=None if a.fresh else DETAIL_START,
            callbacks=(watch,),
        )
    if a.save_start:
        detail.save_start(result.network, result.discriminator, a.save_start)
    pictures = 2 * section.batch_size * section.steps * section.epochs
    cost = {
        "pictures_per_second": pictures / watch.seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    counts = {"root": a.root.path.name, "n": n, "held_out": len(held_out)}
    print_result({**counts, **seconds, **cost, "rows": watch.rows})


if __name__ == "__main__":
    main()
