"""Samples of a root's generator over temperatures and guidance weights: distances to held-out pictures, coverage, copying, sliders.

    python bench/sampling.py ROOT [--temperatures 0.4 0.6 0.7 0.8 0.9 1.0] [--guidance 1 1.5 2 3] [--out FOLDER]

``fd_…``, ``swd``, ``coverage`` and the rest as ``generator_evaluation`` measures them, real against real beside them; ``spearman`` and
``r2`` the least over the five values without eyes, by the root's evaluators. Writes a contact sheet of each setting to ``--out``. The last
line is one JSON object.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.control import control_figures, sweep_all
from gaip3_pipeline.evaluation.samples import evaluate_samples
from gaip3_pipeline.imaging.contact_sheet import contact_sheet
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.sampling.draw import load_face_generator
from gaip3_pipeline.settings import load
from gaip3_pipeline.training.regressor import load_regressor
from gaip3_pipeline.training_data import final_images, frozen_features

SHOWN = ("fd_random", "fd_pixels", "fd_attributes", "swd", "precision", "recall", "coverage", "diversity")
SLIDERS = [a for a in ATTRIBUTES if a != "eyes"]  # most collections show no closed eyes


def main() -> None:
    """Draw, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.4, 0.6, 0.7, 0.8, 0.9, 1.0])
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0, 3.0])
    parser.add_argument("--faces", type=int, default=24, help="of the sweeps")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    root = DataRoot(a.root.resolve())
    settings = load(root)
    data, model = final_images(root, settings), load_face_generator(root)
    learned = (data.table.split == "train").to_numpy()
    evaluators = {x: load_regressor(root.evaluator(x)) for x in ATTRIBUTES}
    features = frozen_features(root)
    rows = []
    for guidance in a.guidance:
        for temperature in a.temperatures:
            section = dataclasses.replace(settings.samples, temperature=temperature, guidance=guidance)
            fresh = evaluate_samples(model, data.images, data.values, learned, section, features=features)
            if fresh is None:
                sys.exit(f"{root.path}: no picture is held out, so there is nothing to compare samples with")
            control = control_figures(sweep_all(model, evaluators, data.values, section, a.faces))
            least = {k: min(control[f"{k}_{x}"] for x in SLIDERS) for k in ("spearman", "r2")}
            figures = {k: round(float(v), 4) for k, v in {**fresh.figures, **least, "leakage": control["leakage"]}.items()}
            rows.append({"temperature": temperature, "guidance": guidance, **figures})
            shown = "  ".join(f"{k} {figures[f'{k}_samples']:.3f}" for k in SHOWN)
            rest = "  ".join(f"{k} {figures[k]:.2f}" for k in ("copying", "spearman", "r2", "leakage"))
            print(f"temperature {temperature:.1f}  guidance {guidance:.1f}  {shown}  {rest}", flush=True)
            if a.out:
                a.out.mkdir(parents=True, exist_ok=True)
                title = f"temperature {temperature:g}, guidance {guidance:g}"
                sheet = contact_sheet(list(fresh.images[:40]), 10, title=title)
                (a.out / f"t{temperature:g}_g{guidance:g}.jpg").write_bytes(sheet)
    print("real against real  " + "  ".join(f"{k} {rows[0][f'{k}_real']:.3f}" for k in SHOWN) + f"  n {rows[0]['fd_n']:.0f}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
