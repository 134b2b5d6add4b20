"""The record of a refresh: its plan, its state, and the figures, pictures and MLflow runs before
and after.

It is a JSON file in ``root.refreshes``, rewritten whole at each change, and a folder with copies of
the pictures before and after. The terminal and the label page show a refresh from its record; the
details of its Dagster runs are in Dagster."""

import contextlib
import datetime
import json
import math
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gaip3_pipeline.evaluation.headlines import main_figures
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.processes import process_lives, this_process
from gaip3_pipeline.refresh.plan import Forecast
from gaip3_pipeline.tables.files import write_text_atomically
from gaip3_pipeline.versions import numbers, read_figures

KEPT = 20
RUNNING, FINISHED, FAILED, STOPPED = "running", "finished", "failed", "stopped"
WAITING, MADE, FRESH = "waiting", "made", "fresh"  # states of an asset, with running and failed
DIED = "its process was killed; the same refresh continues from the last checkpoints"
_DEAD = {"state": STOPPED, "message": DIED, "progress": None}
# the number of labels changed since the previous run: before and after cannot be compared
OF_THIS_RUN = "labels_changed"


class Record:
    """The record of a running refresh. A method's change is on disk when it returns."""

    def __init__(self, root: DataRoot, refresh_id: str, planned: Forecast) -> None:
        self._root = root
        self.refresh_id = refresh_id
        self._figures: dict[str, dict[str, float]] = {}  # before
        self._runs: dict[str, str] = {}  # before
        self._content: dict[str, Any] = {
            "refresh_id": refresh_id,
            "state": RUNNING,
            "process": this_process(),
            "started": _now(),
            "finished": None,
            "message": "",
            "summary": planned.summary,
            "causes": planned.causes,
            "plan": planned.steps,
            "label_changes": planned.label_changes,
            "assets": {p.name: {"state": WAITING, "seconds": None} for p in planned.plan},
            "progress": None,
            "results": [],
            "failed_checks": [],
            "dagster_run_ids": [],
        }
        _forget(root, KEPT - 1)
        self._write()

    def run_started(self, dagster_run_id: str, stale: Iterable[str]) -> None:
        """Note that a further Dagster run begins. Waiting assets that are not among ``stale`` are
        marked as fresh."""
        self._content["dagster_run_ids"].append(dagster_run_id)
        self._settle(set(stale))
        self._write()

    def begins(self, name: str, mlflow_run: str) -> None:
        """Note that the step of an asset starts; ``mlflow_run`` is the page of its last training,
        or ""."""
        self._figures[name] = _finite(self._root, name)
        self._runs[name] = mlflow_run
        self._copy_pictures(name, "before")
        self._asset(name, RUNNING)

    def made(self, name: str, seconds: float, mlflow_run: str) -> None:
        """Note that an asset was materialised, with its figures and pictures before and after."""
        before, after = self._figures.get(name, {}), _finite(self._root, name)
        pictures = self._copy_pictures(name, "after")
        self._content["results"].append(
            {
                "name": name,
                "figures": [
                    {"figure": k, "before": before.get(k), "after": v}
                    for k, v in after.items()
                    if k != OF_THIS_RUN
                ],
                "pictures": [
                    {"before": self._picture("before", p), "after": self._picture("after", p)}
                    for p in pictures
                ],
                "run_before": self._runs.get(name, ""),
                "run_after": mlflow_run,
            }
        )
        self._asset(name, MADE, seconds)

    def failed(self, name: str) -> None:
        """Note that the step of an asset failed."""
        self._asset(name, FAILED)

    def interrupted(self, name: str) -> None:
        """Note that the step of an asset was interrupted: it waits for the next refresh."""
        self._asset(name, WAITING)

    def check_failed(self, line: str) -> None:
        """Note a failed check."""
        self._content["failed_checks"].append(line)
        self._write()

    def progress(self, label: str, done: int, total: int, left: float | None) -> None:
        """Note the progress of the running asset (see :data:`gaip3_pipeline.progress.Watch`)."""
        self._content["progress"] = {"label": label, "done": done, "total": total, "left_s": left}
        self._write()

    def ends(self, state: str, message: str = "") -> None:
        """Note the end of the refresh: ``FINISHED``, ``FAILED`` or ``STOPPED``, and the reason."""
        if state == FINISHED:
            self._settle(set())
        self._content |= {"state": state, "message": message, "finished": _now(), "progress": None}
        self._write()

    @property
    def results(self) -> list[dict[str, Any]]:
        """The materialised assets in order, with figures and pictures (see
        docs/data-contracts.md)."""
        return self._content["results"]

    def _asset(self, name: str, state: str, seconds: float | None = None) -> None:
        self._content["assets"][name] = {"state": state, "seconds": seconds}
        self._content["progress"] = None
        self._write()

    def _settle(self, stale: set[str]) -> None:
        for name, asset in self._content["assets"].items():
            if asset["state"] == WAITING and name not in stale:
                asset["state"] = FRESH

    def _copy_pictures(self, name: str, when: str) -> list[str]:
        pictures = self._root.pictures(name)
        for picture in pictures:
            target = self._root.refreshes / self.refresh_id / when / picture.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, target)
        return [p.name for p in pictures]

    def _picture(self, when: str, name: str) -> str | None:
        path = self._root.refreshes / self.refresh_id / when / name
        return path.relative_to(self._root.refreshes).as_posix() if path.exists() else None

    def _write(self) -> None:
        write_text_atomically(
            _file(self._root, self.refresh_id),
            json.dumps(self._content, indent=1, ensure_ascii=False) + "\n",
        )


@contextlib.contextmanager
def recording(root: DataRoot, refresh_id: str, planned: Forecast) -> Iterator[Record]:
    """A record whose end is that of the block: finished, failed with the error's message, or
    stopped by Ctrl-C or SIGTERM."""
    record = Record(root, refresh_id, planned)
    try:
        yield record
    except Exception as e:
        record.ends(FAILED, str(e))
        raise
    except BaseException:
        record.ends(STOPPED, "interrupted; the same refresh continues from the last checkpoints")
        raise
    record.ends(FINISHED)


def read_records(root: DataRoot) -> list[dict[str, Any]]:
    """The records of the last refreshes, newest first. A record whose process died is ``stopped``;
    unreadable records are left out."""
    records = []
    for path in root.refreshes.glob("[!.]*.json"):
        record = _read(path)
        if record:
            records.append(record | (_DEAD if _died(record, root) else {}))
    return sorted(records, key=lambda r: r["started"], reverse=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _died(record: dict[str, Any], root: DataRoot) -> bool:
    return record["state"] == RUNNING and not process_lives(record["process"], root.heartbeats)


def killed(root: DataRoot) -> list[dict[str, Any]]:
    """The records of refreshes that were killed, until :func:`note_deaths`."""
    found = map(_read, sorted(root.refreshes.glob("[!.]*.json")))
    return [record for record in found if record and _died(record, root)]


def note_deaths(root: DataRoot, records: Iterable[dict[str, Any]]) -> None:
    """Note in the records of killed refreshes that they are stopped."""
    for record in records:
        text = json.dumps(record | _DEAD, indent=1, ensure_ascii=False) + "\n"
        write_text_atomically(_file(root, record["refresh_id"]), text)


def begun(root: DataRoot) -> tuple[set[str], str]:
    """The assets that the last refresh made before it was stopped or failed, and what had changed
    then; nothing after one that was finished."""
    last = next(iter(read_records(root)), None)
    if last is None or last["state"] not in (STOPPED, FAILED) or not last.get("causes"):
        return set(), ""
    return {name for name, asset in last["assets"].items() if asset["state"] == MADE}, last[
        "causes"
    ]


def headline_figures(results: Iterable[dict[str, Any]]) -> dict[str, float]:
    """The main figures of each asset in a record's ``results``, ``asset/figure`` to its value."""
    return {
        f"{result['name']}/{name}": found[name]["after"]
        for result in results
        for found in [{f["figure"]: f for f in result["figures"]}]
        for name in main_figures(result["name"])
        if name in found and found[name]["after"] is not None
    }


def headlines(results: Iterable[dict[str, Any]]) -> list[str]:
    """Lines for a terminal with the main figures of each asset in a record's ``results``, before →
    after."""
    lines = []
    for result in results:
        found = {f["figure"]: f for f in result["figures"]}
        changes = [
            f"{name} {_change(found[name])}"
            for name in main_figures(result["name"])
            if name in found
        ]
        if changes:
            lines.append((result["name"], ", ".join(changes)))
    width = max((len(name) for name, _ in lines), default=0)
    return [f"  {name:{width}}  {changes}" for name, changes in lines]


def _change(figure: dict[str, Any]) -> str:
    before, after = figure["before"], figure["after"]
    return f"{after:.4g}" if before is None or before == after else f"{before:.4g} → {after:.4g}"


def _finite(root: DataRoot, name: str) -> dict[str, float]:
    return {k: v for k, v in numbers(read_figures(root, name)).items() if math.isfinite(v)}


def _forget(root: DataRoot, kept: int) -> None:
    for record in read_records(root)[kept:]:
        _file(root, record["refresh_id"]).unlink(missing_ok=True)
        shutil.rmtree(root.refreshes / record["refresh_id"], ignore_errors=True)


def _file(root: DataRoot, refresh_id: str) -> Path:
    return root.refreshes / f"{refresh_id}.json"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
