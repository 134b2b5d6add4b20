"""A sweep: the generator trained with every combination of some settings, several seeds each, to
compare them. Its trainings change no asset and register no model."""

import dataclasses
import fcntl
import itertools
import json
import os
import sys
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gaip3_pipeline.cluster.connection import ADDRESS
from gaip3_pipeline.layout import DataRoot, checkpoints, sweep_result
from gaip3_pipeline.progress import Progress, watched_by
from gaip3_pipeline.settings import (
    Settings,
    SettingsError,
    flatten,
    load,
    section_hash,
    with_values,
)
from gaip3_pipeline.tables.content import content_hash
from gaip3_pipeline.tables.files import write_text_atomically
from gaip3_pipeline.tables.hashing import digest
from gaip3_pipeline.training.run import Run, one_after_another

if TYPE_CHECKING:
    import pandas as pd

SECTION = "nvae"
ASSET = "nvae_weights"
MEASURE = "bits_per_dim"
FAILED = "failed"  # in a result: why the training ended without a model
ARGUMENTS = "GAIP3_SWEEP"  # environment variable of a job: the arguments of the sweep as JSON
_PARTS = 100  # of a training, in the sweep's progress


class SweepError(RuntimeError):
    """The sweep cannot run; the message is one line with the remedy."""


@dataclass(frozen=True)
class Point:
    """One training: all settings, and those that the sweep varies."""

    settings: Settings
    varied: dict[str, Any]
    seed: int

    @property
    def name(self) -> str:
        return ", ".join([*(f"{k}={v}" for k, v in self.varied.items()), f"seed={self.seed}"])


@dataclass(frozen=True)
class Sweep:
    """The trainings of a sweep, the data versions of their ``inputs`` and the code version. The
    ``id`` is a hash of all this, so the same command continues the same sweep."""

    points: list[Point]
    inputs: Mapping[str, str]
    code_version: str

    @property
    def id(self) -> str:
        points = [section_hash(p.settings.nvae) for p in self.points]
        inputs = [f"{k}={v}" for k, v in sorted(self.inputs.items())]
        return digest([self.code_version, *inputs, *points])[:8]


def state_of_inputs(root: DataRoot, definitions: Any, instance: Any) -> tuple[dict[str, str], str]:
    """The data versions of the generator's inputs in ``root`` and the code version of its training.
    Raises :class:`SweepError` for an input that was never made."""
    from gaip3_pipeline.versions import current_version

    node = _generator(definitions)
    inputs = {
        key.to_user_string(): current_version(instance, key) or ""
        for key in sorted(node.parent_keys)
    }
    for name, version in inputs.items():
        if not version:
            raise SweepError(
                f"{name} is not made yet, and a sweep trains with the inputs of {ASSET}: run gaip3"
                f" refresh --root {root.path}"
            )
    return inputs, str(node.code_version)


def names_of_inputs(definitions: Any) -> list[str]:
    """The assets that a training of the generator reads."""
    return sorted(key.to_user_string() for key in _generator(definitions).parent_keys)


def _generator(definitions: Any) -> Any:
    import dagster as dg

    return definitions.resolve_asset_graph().get(dg.AssetKey(ASSET))


def grid(
    settings: Settings, given: Sequence[str], seeds: int, epochs: int | None = None
) -> list[Point]:
    """Every combination of the values in ``given``, lines such as ``learning_rate=.002,.005`` of
    settings of ``[nvae]``, each with the seeds from that of the settings on.

    Raises :class:`SettingsError` for an unknown setting and for values of another type."""
    varied: dict[str, list[Any]] = {}
    for line in given:
        name, equals, text = (part.strip() for part in line.partition("="))
        if not equals or not text:
            raise SettingsError(f"--set {line}: write it as learning_rate=.002,.005")
        if name in varied:
            raise SettingsError(f"--set {name} is given twice: list its values with commas")
        if name == "seed":
            raise SettingsError("--set seed: give the number of seeds with --seeds")
        if name == "epochs" and epochs:
            raise SettingsError("--set epochs: leave out --epochs")
        varied[name] = list(dict.fromkeys(_values(text)))
    base = with_values(settings, SECTION, {"epochs": epochs} if epochs else {}, "--epochs")
    points = []
    for values in itertools.product(*varied.values()):
        chosen = dict(zip(varied, values, strict=True))
        point = with_values(base, SECTION, chosen, "--set")
        chosen = {k: getattr(point.nvae, k) for k in chosen}
        for seed in range(settings.nvae.seed, settings.nvae.seed + seeds):
            points.append(Point(with_values(point, SECTION, {"seed": seed}, ""), chosen, seed))
    return points


def _values(text: str) -> tuple[Any, ...]:
    """The values of a list such as ``1, .5``, ``dense,paper`` or ``(1, 2), (3, 4)``."""
    try:
        return literal_eval(f"({text},)")
    except (ValueError, SyntaxError):
        return tuple(part.strip() for part in text.split(","))


def run_sweep(root: DataRoot, sweep: Sweep, say: Callable[[str], None]) -> "pd.DataFrame":
    """Train every point of ``sweep`` and return its :func:`table`.

    Here one training runs after another, in a job of a cluster each is a task. Finished ones are
    kept, and an unfinished one resumes from its last checkpoint. A training that diverges or does
    not fit into memory is reported and ends no other. Effects: folders below ``.gaip3/sweeps`` of
    the root; in MLflow a parent run with a child for each training and the table as ``sweep.csv``.
    Raises :class:`SweepError` while another process runs the same sweep."""
    from gaip3_pipeline.cluster.training import RayTrainings
    from gaip3_pipeline.definitions import tracking_of

    settings = load(root)
    tracking = tracking_of(root, settings)
    n = len(sweep.points)
    with _alone(root, sweep.id):
        kept = [_read(root.sweep_point(sweep.id, number)) for number in range(n)]
        found = sum(result is not None for result in kept)
        say(f"sweep {sweep.id}: {n} trainings" + (f", {found} of them finished" if found else ""))
        parent = tracking.start_sweep(sweep.id, f"sweep {SECTION} {sweep.id}")
        trainings = RayTrainings(settings.cluster) if os.environ.get(ADDRESS) else one_after_another
        shares = [float(result is not None) for result in kept]
        whole = Progress(f"  sweep {sweep.id}", n * _PARTS)
        whole.update(round(sum(shares) * _PARTS))

        def watch(number: str, done: int, total: int, left: float | None) -> None:
            shares[int(number)] = done / max(total, 1)
            whole.update(round(sum(shares) * _PARTS))

        with watched_by(watch), Path(os.devnull).open("w") as nowhere:
            results = []
            for number, result in enumerate(
                trainings(
                    TrainPoint(root, sweep, parent),
                    (
                        Run(
                            root.sweep_point(sweep.id, number),
                            f"{sweep.id} {number}",
                            progress=Progress(str(number), 1, nowhere),
                        )
                        for number in range(n)
                    ),
                )
            ):
                watch(str(number), 1, 1, None)
                results.append(result)
        for point, result in zip(sweep.points, results, strict=True):
            if FAILED in result:
                say(f"{point.name}: {result[FAILED]}")
        made = table(sweep.points, results)
        tracking.end_sweep(parent, made.to_csv(index=False))
        return made


@dataclass(frozen=True)
class TrainPoint:
    """The training of one point in this process, with its run in MLflow: the number of the point
    and its :class:`Run` to its metrics."""

    root: DataRoot
    sweep: Sweep
    parent: str  # id of the sweep's run in MLflow

    def __call__(self, number: int, run: Run) -> dict[str, Any]:
        result = _read(run.folder)
        if result is None:
            from gaip3_pipeline.training.fit import DivergedError, OutOfMemoryError

            try:
                result = self._train(number, run)
            except (DivergedError, OutOfMemoryError, ValueError) as e:
                return {FAILED: str(e)}
            write_text_atomically(sweep_result(run.folder), json.dumps(result, indent=1) + "\n")
        if checkpoints(run.folder).exists():
            from gaip3_pipeline.training import checkpoint

            checkpoint.discard(checkpoints(run.folder))
        return result

    def _train(self, number: int, run: Run) -> dict[str, Any]:
        from gaip3_pipeline.definitions import tracking_of
        from gaip3_pipeline.evaluation.generator import generator_sheet
        from gaip3_pipeline.mlflow_tracking import TrainingRun
        from gaip3_pipeline.training.generator import train_nvae
        from gaip3_pipeline.training_data import final_images, generator_guides, known_values
        from gaip3_pipeline.versions import log_outcome, numbers

        point = self.sweep.points[number]
        section = point.settings.nvae
        data = final_images(self.root, point.settings)
        with TrainingRun(
            tracking_of(self.root, load(self.root)),
            asset=f"sweep_{SECTION}",
            name=point.name,
            parent_id=self.parent,
            code_version=self.sweep.code_version,
            inputs=self.sweep.inputs,
            fingerprint=run.fingerprint,
            parameters=flatten(section),
            content=content_hash(self.root),
        ) as logged:
            result = train_nvae(
                data.examples,
                section,
                dataclasses.replace(run, log=logged.log),
                guides=generator_guides(self.root, section),
                known=list(known_values(self.root).values()),
            )
            sheet = generator_sheet(
                run.folder, data.images, data.values, data.table.split.to_numpy()
            )
            log_outcome(logged, result.figures, {"samples_and_sweeps": sheet})
        return numbers(result.figures)


def table(points: Sequence[Point], results: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """A row for each combination of settings, the best first: its settings, the number of its
    trainings and of those that failed, and mean and standard deviation of held-out bits/dim over
    its seeds."""
    import pandas as pd

    names = list(points[0].varied)
    rows = pd.DataFrame(
        [
            # tuples as text: they are one value
            {k: str(v) if isinstance(v, tuple) else v for k, v in point.varied.items()}
            | {"failed": FAILED in result, MEASURE: result.get(MEASURE, float("nan"))}
            for point, result in zip(points, results, strict=True)
        ]
    )
    measured = {
        "trainings": ("failed", "size"),
        "failed": ("failed", "sum"),
        MEASURE: (MEASURE, "mean"),
        f"{MEASURE}_sd": (MEASURE, "std"),
    }
    if names:
        grouped = rows.groupby(names, sort=False).agg(**measured).reset_index()
    else:
        grouped = rows.groupby(lambda row: 0).agg(**measured)
    return grouped.sort_values(MEASURE, kind="stable", na_position="last", ignore_index=True)


def shown(made: "pd.DataFrame") -> str:
    """The table for the terminal: mean ± standard deviation in one column."""
    mean, deviation = made[MEASURE], made[f"{MEASURE}_sd"]
    text = [
        "none" if m != m else f"{m:.4f}" + ("" if s != s else f" ± {s:.4f}")  # NaN: one training
        for m, s in zip(mean, deviation, strict=True)
    ]
    return made.drop(columns=f"{MEASURE}_sd").assign(**{MEASURE: text}).to_string(index=False)


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads(sweep_result(folder).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


@contextmanager
def _alone(root: DataRoot, sweep_id: str) -> Iterator[None]:
    file = root.sweep_lock(sweep_id)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise SweepError(
                f"sweep {sweep_id} of {root.path} runs already: wait for it, or stop it"
            ) from e
        yield


def main() -> None:
    """The job of a sweep on a cluster; its arguments are those of :func:`grid`, the root and the
    state of the inputs."""
    given = json.loads(os.environ[ARGUMENTS])
    root = DataRoot(Path(given["root"]))
    points = grid(load(root), given["given"], given["seeds"], given["epochs"])
    try:
        made = run_sweep(root, Sweep(points, given["inputs"], given["code_version"]), print)
    except SweepError as e:
        sys.exit(f"Error: {e}")
    print(shown(made))
    sys.exit(1 if made.failed.any() else 0)


if __name__ == "__main__":
    main()
