"""Figures of samples of a root's generator over temperatures and guidance weights.

    python bench/sampling.py ROOT [--temperatures 0.4 0.6 0.7 0.8 0.9 1.0]
                             [--guidance 1 1.5 2 3] [--faces 24] [--out FOLDER]

``fd_…``, ``swd``, ``coverage`` and the others are those of ``generator_evaluation``, which needs at
least 16 held-out pictures, with the figures of real against real pictures as a baseline.
``spearman`` and ``r2`` are the least over the values except eyes, by the root's evaluators. Writes
a contact sheet of each setting to ``--out``. Prints a table; the last line is one JSON object.
"""

import dataclasses
import sys

from common import command_line, data_root, folder, print_result

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.control import control_figures, sweep_all
from gaip3_pipeline.evaluation.distances import LEAST
from gaip3_pipeline.evaluation.samples import evaluate_samples
from gaip3_pipeline.imaging.contact_sheet import contact_sheet
from gaip3_pipeline.sampling.draw import load_face_generator
from gaip3_pipeline.settings import load
from gaip3_pipeline.training.regressor import load_regressor
from gaip3_pipeline.training_data import final_images, frozen_features

SHOWN = (
    "fd_random",
    "fd_pixels",
    "fd_attributes",
    "swd",
    "precision",
    "recall",
    "coverage",
    "diversity",
)
SLIDERS = [a for a in ATTRIBUTES if a != "eyes"]  # most collections have no closed eyes
HELD_OUT = 2 * LEAST  # pictures: one half is the reference of the distances, the other the baseline


def main() -> None:
    """Draw, measure, report."""
    parser = command_line(__doc__)
    parser.add_argument("root", type=data_root)
    parser.add_argument(
        "--temperatures", type=float, nargs="+", default=[0.4, 0.6, 0.7, 0.8, 0.9, 1.0]
    )
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0, 3.0])
    parser.add_argument("--faces", type=int, default=24, help="of the sweeps")
    parser.add_argument("--out", type=folder)
    a = parser.parse_args()
    settings = load(a.root)
    data = final_images(a.root, settings)
    learned = (data.table.split == "train").to_numpy()
    held_out = int((~learned).sum())
    if held_out < HELD_OUT:
        sys.exit(f"{a.root.path}: {held_out} pictures are held out, and distances need {HELD_OUT}")
    model = load_face_generator(a.root)
    evaluators = {x: load_regressor(a.root.evaluator(x)) for x in ATTRIBUTES}
    features = frozen_features(a.root)
    rows = []
    for guidance in a.guidance:
        for temperature in a.temperatures:
            section = dataclasses.replace(
                settings.samples, temperature=temperature, guidance=guidance
            )
            fresh = evaluate_samples(
                model, data.images, data.values, learned, section, features=features
            )
            assert fresh  # pictures are held out
            control = control_figures(sweep_all(model, evaluators, data.values, section, a.faces))
            least = {k: min(control[f"{k}_{x}"] for x in SLIDERS) for k in ("spearman", "r2")}
            found = fresh.figures | least | {"leakage": control["leakage"]}
            figures = {k: round(float(v), 4) for k, v in found.items()}
            rows.append({"temperature": temperature, "guidance": guidance, **figures})
            shown = "  ".join(f"{k} {figures[f'{k}_samples']:.3f}" for k in SHOWN)
            others = ("copying", "spearman", "r2", "leakage")
            rest = "  ".join(f"{k} {figures[k]:.2f}" for k in others)
            drawn = f"temperature {temperature:.1f}  guidance {guidance:.1f}"
            print(f"{drawn}  {shown}  {rest}", flush=True)
            if a.out:
                title = f"temperature {temperature:g}, guidance {guidance:g}"
                sheet = contact_sheet(list(fresh.images[:40]), 10, title=title)
                (a.out / f"t{temperature:g}_g{guidance:g}.jpg").write_bytes(sheet)
    real = "  ".join(f"{k} {rows[0][f'{k}_real']:.3f}" for k in SHOWN)
    print(f"real against real  {real}  n {rows[0]['fd_n']:.0f}")
    print_result({"rows": rows})


if __name__ == "__main__":
    main()
