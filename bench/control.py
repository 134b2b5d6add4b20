"""How well the sliders of a root's generator work, measured by regressors that know the exact values of painted faces.

    python bench/control.py ROOT EVALUATORS [--painted 4000] [--guidance 1 1.5 2] [--temperature 0.8] [--faces 48]

For roots of painted faces (``gaip3 demo``). EVALUATORS is a folder for what measures: women painted with another seed than any root's,
and five regressors trained on the exact values of nine tenths of them, half of the pictures blurred; made at the first call (6 minutes on
two cores) and used again. They share no picture, no label and no weights with the pipeline, whose own ``evaluator_*`` learn from noisy
labels. For each guidance: Spearman, R² of asked against measured, slopes, leakage and drift as ``generator_evaluation`` defines them, and
a sheet of strips and a chart in EVALUATORS. The last line is one JSON object.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.control import control_chart, control_figures, slopes, sweep_all, sweep_strips
from gaip3_pipeline.evaluation.samples import evaluate_samples
from gaip3_pipeline.faces.dataset import portraits, write_dataset
from gaip3_pipeline.imaging.packing import load_images
from gaip3_pipeline.imaging.processing import resize_set
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.metrics.regression import regression_figures
from gaip3_pipeline.models.nvae.model import load_nvae
from gaip3_pipeline.sampling.draw import FaceGenerator, load_face_generator
from gaip3_pipeline.settings import Evaluator, Faces, load
from gaip3_pipeline.training.regressor import Regressor, load_regressor, train_regressor
from gaip3_pipeline.training.run import Examples, Run
from gaip3_pipeline.training_data import final_images

SEED = 991  # of the painted faces; no root uses it


def exact_evaluators(folder: Path, painted: int, root: DataRoot) -> tuple[dict[str, Regressor], dict[str, float]]:
    """The five regressors, trained if they are not there yet, and their R² against exact values on a tenth that they did not see."""
    settings = load(root)
    known = folder / "held_out.json"
    if not known.exists():
        faces = Faces(d1=0, female=painted, male=0, size=256, seed=SEED)
        away = DataRoot(folder)
        write_dataset(away, faces)
        wanted = portraits(faces)
        female = next(s for s in IMAGE_SETS if s.sex == "female")
        resize_set(away, female, settings.images)
        folder_of = away.processed("resized", female)
        images = np.concatenate(list(load_images([folder_of / p.file for p in wanted], settings.images.height, settings.images.width)))
        split = np.where(np.arange(painted) % 10 == 0, "test", "train")
        held_out = {}
        for attribute in ATTRIBUTES:
            exact = np.array([getattr(p.face, attribute) for p in wanted], np.float32)
            section = Evaluator(epochs=16, dropout=0.1, seed=SEED)
            target = folder / f"evaluator_{attribute}"
            result = train_regressor([attribute], Examples(images, exact[:, None], split), section, Run(target, "bench"))
            held_out[attribute] = regression_figures(result.predicted[split == "test", 0], exact[split == "test"])["r2"]
            print(f"exact evaluator of {attribute:12} R² {held_out[attribute]:.3f} held out", flush=True)
        known.write_text(json.dumps(held_out))
    return {a: load_regressor(folder / f"evaluator_{a}") for a in ATTRIBUTES}, json.loads(known.read_text())


def main() -> None:
    """Sweep, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("evaluators", type=Path)
    parser.add_argument("--model", type=Path, help="a generator's folder: drawn from its prior, without detail")
    parser.add_argument("--painted", type=int, default=4000)
    parser.add_argument("--faces", type=int, default=48)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--detail", type=float, help="0: means alone; the root's, if not given")
    a = parser.parse_args()
    root = DataRoot(a.root.resolve())
    evaluators, limits = exact_evaluators(a.evaluators.resolve(), a.painted, root)
    generator = FaceGenerator(load_nvae(a.model)) if a.model else load_face_generator(root)
    data, rows = final_images(root, load(root)), []
    learned = (data.table.split == "train").to_numpy()
    for guidance in a.guidance:
        samples = load(root).samples
        detail = samples.detail if a.detail is None else a.detail
        drawn = dataclasses.replace(samples, temperature=a.temperature, guidance=guidance, detail=detail)
        sweeps = sweep_all(generator, evaluators, data.values, drawn, a.faces)
        fresh = evaluate_samples(generator, data.images, data.values, learned, drawn)
        figures = {k: round(v, 3) for k, v in (control_figures(sweeps) | (fresh.figures if fresh else {})).items()}
        rows.append({"guidance": guidance, "temperature": a.temperature, **figures})
        print(f"\nguidance {guidance:g}\n{pd.DataFrame(slopes(sweeps), ATTRIBUTES, ATTRIBUTES).round(2)}")
        print("  ".join(f"{k} {v}" for k, v in figures.items() if k.startswith(("fd_", "diversity"))))
        for name in ("spearman", "r2", "drift"):
            print(f"{name:9}" + "".join(f"  {attribute} {figures[f'{name}_{attribute}']:.3f}" for attribute in ATTRIBUTES))
        (a.evaluators / f"strips_guidance_{guidance:g}.jpg").write_bytes(sweep_strips(sweeps))
        (a.evaluators / f"control_guidance_{guidance:g}.jpg").write_bytes(control_chart(sweeps, limits))
    print(json.dumps({"evaluators_r2": {k: round(v, 3) for k, v in limits.items()}, "rows": rows}))


if __name__ == "__main__":
    main()
