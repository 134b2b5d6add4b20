"""How well the sliders of a root's generator work, by regressors trained on exact values.

    python bench/control.py ROOT EVALUATORS [--painted 4000] [--guidance 1 1.5 2]
                            [--temperature 0.8] [--faces 48]

For roots of painted faces (``gaip3 demo``). EVALUATORS is a folder for the evaluators: faces of
women painted with a seed that no root uses, and five regressors trained on the exact values of nine
tenths of them, with half of the pictures blurred. They are made by the first call (6 minutes on two
cores) and reused by later ones. They share no picture, no label and no weights with the pipeline,
whose own ``evaluator_*`` are trained on noisy labels. For each guidance: Spearman's correlation and
R² of asked against measured values, slopes, leakage and drift as ``generator_evaluation`` defines
them, and a sheet of strips and a chart in EVALUATORS. The last line is one JSON object.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
from common import command_line, data_root, folder, print_result

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.evaluation.control import (
    control_chart,
    control_figures,
    slopes,
    sweep_all,
    sweep_strips,
)
from gaip3_pipeline.evaluation.samples import evaluate_samples
from gaip3_pipeline.faces.dataset import portraits, write_dataset
from gaip3_pipeline.imaging.packing import load_images
from gaip3_pipeline.imaging.processing import resize_set
from gaip3_pipeline.layout import SET_OF_SEX, DataRoot
from gaip3_pipeline.metrics.regression import regression_figures
from gaip3_pipeline.models.nvae.model import load_nvae
from gaip3_pipeline.sampling.draw import FaceGenerator, load_face_generator
from gaip3_pipeline.settings import Evaluator, Faces, Images, load
from gaip3_pipeline.training.regressor import Regressor, load_regressor, train_regressor
from gaip3_pipeline.training.run import Examples, Run
from gaip3_pipeline.training_data import final_images

SEED = 991  # of the painted faces; no root uses it


def exact_evaluators(
    where: Path, painted: int, epochs: int, settings: Images
) -> tuple[dict[str, Regressor], dict[str, float]]:
    """The five regressors, trained if they do not exist yet, and their R² against exact values on
    the held-out tenth."""
    known = where / "held_out.json"
    if not known.exists():
        faces = Faces(d1=0, female=painted, male=0, size=256, seed=SEED)
        away = DataRoot(where.resolve())
        write_dataset(away, faces)
        wanted = portraits(faces)
        resize_set(away, SET_OF_SEX["female"], settings)
        resized = away.processed("resized", SET_OF_SEX["female"])
        paths = [resized / p.file for p in wanted]
        images = np.concatenate(list(load_images(paths, settings.height, settings.width)))
        split = np.where(np.arange(painted) % 10 == 0, "test", "train")
        unseen = split == "test"
        section = Evaluator(epochs=epochs, dropout=0.1, seed=SEED)
        held_out = {}
        for attribute in ATTRIBUTES:
            exact = np.array([getattr(p.face, attribute) for p in wanted], np.float32)
            examples = Examples(images, exact[:, None], split)
            run = Run(where / f"evaluator_{attribute}", "bench")
            predicted = train_regressor([attribute], examples, section, run).predicted[:, 0]
            held_out[attribute] = regression_figures(predicted[unseen], exact[unseen])["r2"]
            print(
                f"exact evaluator of {attribute:12} R² {held_out[attribute]:.3f} held out",
                flush=True,
            )
        known.write_text(json.dumps(held_out))
    evaluators = {a: load_regressor(where / f"evaluator_{a}") for a in ATTRIBUTES}
    return evaluators, json.loads(known.read_text())


def main() -> None:
    """Sweep, measure, report."""
    parser = command_line(__doc__)
    parser.add_argument("root", type=data_root)
    parser.add_argument("evaluators", type=folder)
    parser.add_argument(
        "--model", type=Path, help="folder of a generator to draw from its prior, without detail"
    )
    parser.add_argument("--painted", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=16, help="of the evaluators")
    parser.add_argument("--faces", type=int, default=48)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--detail", type=float, help="0: no detail [default: the root's setting]")
    a = parser.parse_args()
    settings = load(a.root)
    evaluators, limits = exact_evaluators(a.evaluators, a.painted, a.epochs, settings.images)
    generator = FaceGenerator(load_nvae(a.model)) if a.model else load_face_generator(a.root)
    data, rows = final_images(a.root, settings), []
    learned = (data.table.split == "train").to_numpy()
    detail = settings.samples.detail if a.detail is None else a.detail
    section = dataclasses.replace(settings.samples, temperature=a.temperature, detail=detail)
    for guidance in a.guidance:
        drawn = dataclasses.replace(section, guidance=guidance)
        sweeps = sweep_all(generator, evaluators, data.values, drawn, a.faces)
        fresh = evaluate_samples(generator, data.images, data.values, learned, drawn)
        found = control_figures(sweeps) | (fresh.figures if fresh else {})
        figures = {k: round(v, 3) for k, v in found.items()}
        rows.append({"guidance": guidance, "temperature": a.temperature, **figures})
        table = pd.DataFrame(slopes(sweeps), ATTRIBUTES, ATTRIBUTES).round(2)
        print(f"\nguidance {guidance:g}\n{table}")
        shown = {k: v for k, v in figures.items() if k.startswith(("fd_", "diversity"))}
        print("  ".join(f"{k} {v}" for k, v in shown.items()))
        for name in ("spearman", "r2", "drift"):
            of_each = (f"  {x} {figures[f'{name}_{x}']:.3f}" for x in ATTRIBUTES)
            print(f"{name:9}" + "".join(of_each))
        strips = a.evaluators / f"strips_guidance_{guidance:g}.jpg"
        strips.write_bytes(sweep_strips(sweeps))
        chart = a.evaluators / f"control_guidance_{guidance:g}.jpg"
        chart.write_bytes(control_chart(sweeps, limits))
    rounded = {k: round(v, 3) for k, v in limits.items()}
    print_result({"evaluators_r2": rounded, "rows": rows})


if __name__ == "__main__":
    main()
