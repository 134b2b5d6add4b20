"""Small data roots for drills, and what must hold in one after a disaster."""

import hashlib
from pathlib import Path

from drills.commands import command, succeed
from drills.drill import Exercise
from gaip3_pipeline.dagster_home import ensure_dagster_home
from gaip3_pipeline.faces.dataset import write_dataset
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.files import TEMPORARY, write_text_atomically
from gaip3_pipeline.tables.hashing import file_sha256, weights_version
from gaip3_pipeline.tables.manifests import read_manifest

# what holds times, or figures of times, and so differs between two runs that nothing disturbed
TIMES = ("logs/", "report/", "curation/report", "review/report")
CONTRACT = ["path", "size", "sha256", "status", "reason"]  # of a manifest; the rest are times


def painted(folder: Path, settings: str = "") -> DataRoot:
    """A root of painted faces with the preset ``tiny`` on which nothing has run."""
    root = DataRoot(folder)
    folder.mkdir(parents=True)
    write_text_atomically(root.settings_file, f'preset = "tiny"\n{settings}'.strip() + "\n")
    write_dataset(root, load(root).faces)
    return root


def finished(folder: Path) -> DataRoot:
    """A root of painted faces on which the whole graph has run."""
    root = painted(folder)
    succeed(command(root, "refresh"))
    return root


def contents(root: DataRoot) -> dict[str, str]:
    """The hash of every file of ``root`` but those of :data:`TIMES` and its state; of a manifest
    that of the contract's columns, of weights that of their arrays."""
    found = {}
    for path in sorted(root.path.rglob("*")):
        name = path.relative_to(root.path).as_posix()
        if not path.is_file() or name.startswith((".gaip3/", *TIMES)):
            continue
        if name.startswith("manifests/") and path.suffix == ".parquet":
            table = read_manifest(path)
            table = table[[c for c in table.columns if c in CONTRACT]]
            found[name] = hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()
        elif name.endswith(".weights.h5"):
            found[name] = weights_version(path.parent)  # HDF5 notes when an array was written
        else:
            found[name] = file_sha256(path)
    return found


def check_equal(exercise: Exercise, root: DataRoot, whole: dict[str, str]) -> None:
    """The files of ``root`` are those of an unbroken run."""
    here = contents(root)
    differ = sorted(n for n in here.keys() | whole.keys() if here.get(n) != whole.get(n))
    exercise.check(not differ, f"{len(differ)} files differ from an unbroken run: {differ[:5]}")


def check_settled(exercise: Exercise, root: DataRoot, fresh: bool = True) -> None:
    """Nothing in ``root`` is half done: no temporary file, no run in MLflow or Dagster, no slot of
    Dagster's pool; if it must be ``fresh``, nothing is stale."""
    import dagster as dg

    from gaip3_pipeline.definitions import tracking_of
    from gaip3_pipeline.refresh.run import UNFINISHED

    left = [p.name for p in root.path.rglob("*") if p.name.startswith(TEMPORARY)]
    exercise.check(not left, f"temporary files are left: {left[:5]}")
    with dg.DagsterInstance.from_config(str(ensure_dagster_home(root))) as instance:
        open_runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
        exercise.check(not open_runs, f"{len(open_runs)} runs of Dagster have not ended")
        store = instance.event_log_storage
        for pool in store.get_concurrency_keys():
            held = store.get_concurrency_info(pool).active_slot_count
            exercise.check(not held, f"{held} slots of Dagster's pool {pool} are held")
    tracking = tracking_of(root, load(root))
    client = tracking.client()
    orphans = client.search_runs([tracking.experiment(client)], "attributes.status = 'RUNNING'")
    exercise.check(not orphans, f"{len(orphans)} runs of MLflow are RUNNING")
    if not fresh:
        return
    plan = succeed(command(root, "refresh", "--dry-run"))
    exercise.check("Nothing is stale" in plan, f"after it something is stale: {plan[:300]}")


def repeated_epochs(root: DataRoot) -> int:
    """How many epochs of trainings are in MLflow more than once: each was trained again."""
    from gaip3_pipeline.definitions import tracking_of

    tracking = tracking_of(root, load(root))
    client = tracking.client()
    repeated = 0
    for run in client.search_runs([tracking.experiment(client)], max_results=1000):
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "epoch/loss")]
        repeated += len(steps) - len(set(steps))
    return repeated
