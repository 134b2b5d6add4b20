"""The web application of one data root: labels, pictures, history and refreshes over HTTP, the
studio (``studio``), and the page itself.

A label is acknowledged when it is on disk (``tables.label_store``). A refresh runs in a process of
its own, so that it continues when this one ends and is the same as one started in a terminal; the
page shows it from its record."""

import getpass
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from gaip3_pipeline.attributes import ATTRIBUTES, MEANINGS
from gaip3_pipeline.imaging.decode import UnusableImage
from gaip3_pipeline.layout import INDEX, PAGE, REPOSITORY, DataRoot
from gaip3_pipeline.processes import of_this_host
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.contracts import REVIEW_COLUMNS, read_label_review
from gaip3_pipeline.tables.label_store import Change, Edit, Key, LabelConflict, LabelStore
from gaip3_pipeline.tables.names import nfc, stem_of
from gaip3_pipeline.tables.problems import ContractError
from gaip3_pipeline.web.guard import Guard
from gaip3_pipeline.web.pictures import Pictures
from gaip3_pipeline.web.studio import UPLOAD, UPLOADS, StudioRoutes

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
NAME = 60  # characters of a person's name
# safe to cache, since a picture's address changes with the picture
FOR_A_YEAR = {"Cache-Control": "private, max-age=31536000, immutable"}


class NewLabel(BaseModel):
    """A value of one image; None removes its label."""

    attribute: str
    gender: str
    stem: str
    value: float | None


class NewRefresh(BaseModel):
    """A request to refresh; ``warm_start``: train the generator from its last weights."""

    warm_start: bool


class NewLabels(BaseModel):
    """Labels that a browser tab sends together."""

    labels: Annotated[list[NewLabel], Field(min_length=1, max_length=10_000)]
    who: Annotated[str, Field(min_length=1, max_length=NAME)]
    session: Annotated[str, Field(max_length=NAME)] = ""


class Person(BaseModel):
    """The person who undoes a change, and the browser tab."""

    who: Annotated[str, Field(min_length=1, max_length=NAME)]
    session: Annotated[str, Field(max_length=NAME)] = ""


def build_app(root: DataRoot, token: str = "", links: dict[str, str] | None = None) -> FastAPI:
    """The web application of ``root``. A ``token`` that is not empty is required of clients;
    ``links``: other pages, such as Dagster's, by name."""
    studio = StudioRoutes(root)

    @asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await studio.close()

    app = FastAPI(
        title="gaip3 labels", docs_url=None, redoc_url=None, openapi_url=None, lifespan=running
    )
    app.add_middleware(Guard, token=token, larger={UPLOADS: UPLOAD})
    for error, status in ((ContractError, 422), (ValueError, 422), (LabelConflict, 409)):
        app.add_exception_handler(error, _answered_with(status))
    app.include_router(studio.router)
    app.include_router(LabelRoutes(root, links or {}).router)
    app.include_router(RefreshRoutes(root).router)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


def _answered_with(status: int) -> Callable[[Request, Exception], Response]:
    return lambda _request, error: JSONResponse({"detail": str(error)}, status)


class LabelRoutes:
    """The routes of the label page of one root."""

    def __init__(self, root: DataRoot, links: dict[str, str]) -> None:
        self._root, self._links = root, links
        self._store, self._pictures = LabelStore(root), Pictures(root, load(root).images)
        self.router = router = APIRouter()
        router.add_api_route("/", self.start, methods=["GET"])
        router.add_api_route("/label", self.label_tab, methods=["GET"])
        router.add_api_route("/api/about", self.about, methods=["GET"])
        router.add_api_route("/api/labels/{attribute}", self.labels, methods=["GET"])
        router.add_api_route("/api/labels", self.label, methods=["POST"])
        router.add_api_route("/api/undo", self.undo, methods=["POST"])
        router.add_api_route("/api/restore/{change_id}", self.restore, methods=["POST"])
        router.add_api_route("/api/history", self.history, methods=["GET"])
        router.add_api_route("/api/changes", self.changes, methods=["GET"])
        router.add_api_route("/picture/thumbnail/{gender}/{stem}", self.thumbnail, methods=["GET"])
        router.add_api_route("/picture/large/{gender}/{stem}", self.large, methods=["GET"])
        router.add_api_route("/picture/example/{attribute}/{level}", self.example, methods=["GET"])

    def start(self) -> Response:
        """The page."""
        return FileResponse(INDEX, headers={"Cache-Control": "no-cache"})

    def label_tab(self) -> Response:
        """A redirect to the page's first tab."""
        return RedirectResponse("/#label")

    def about(self) -> dict[str, Any]:
        """The data that the page needs first: root, user, links, attributes and levels."""
        return {
            "root": self._root.path.name,
            "who": _user(),
            "links": self._links,
            "attributes": [{"name": a, "meaning": MEANINGS[a]} for a in ATTRIBUTES],
            "levels": LEVELS,
        }

    def labels(self, attribute: str) -> dict[str, Any]:
        """All that the page shows of an attribute: see :func:`labels_of`."""
        if attribute not in ATTRIBUTES:
            raise HTTPException(404, f"there is no attribute {attribute}")
        return labels_of(self._root, self._store, attribute)

    def label(self, new: NewLabels) -> dict[str, Any]:
        """Write labels; the answer has the changes as they are in the history."""
        edits = [Edit(n.attribute, n.gender, n.stem, n.value) for n in new.labels]
        return {"changes": self._store.apply(edits, new.who, new.session, confirm=True)}

    def undo(self, person: Person) -> dict[str, Change | None]:
        """Undo a person's last change in a tab."""
        return {"change": self._store.undo(person.who, person.session)}

    def restore(self, change_id: int, person: Person) -> dict[str, Change]:
        """Give a label the value that it had before a change."""
        return {"change": self._store.restore(change_id, person.who, person.session)}

    def history(self, attribute: str, gender: str, stem: str) -> dict[str, list[Change]]:
        """The changes of one label."""
        return {"changes": self._store.history(attribute, gender, stem)}

    def changes(self, since: Annotated[int, Query(ge=0)]) -> dict[str, list[Change]]:
        """All changes after the one with the number ``since``."""
        return {"changes": self._store.history(since=since)}

    def thumbnail(self, gender: str, stem: str) -> Response:
        """A small picture of an original."""
        return _jpeg(lambda: self._pictures.thumbnail(gender, self._image(gender, stem)))

    def large(self, gender: str, stem: str) -> Response:
        """A large picture of an original."""
        return _jpeg(lambda: self._pictures.large(self._image(gender, stem)))

    def example(self, attribute: str, level: int) -> Response:
        """A picture of a level: a labelled one or, without any, a painted one."""
        if attribute not in ATTRIBUTES or not 0 <= level < len(LEVELS):
            raise HTTPException(404, "there is no such level")
        key = example_of(self._root, self._store, attribute, LEVELS[level])
        headers = {"Cache-Control": "no-cache"}  # labels change
        if key:
            return _jpeg(lambda: self._pictures.thumbnail(key[0], self._image(*key)), headers)
        return _jpeg(lambda: self._pictures.painted(attribute, LEVELS[level]), headers)

    def _image(self, gender: str, stem: str) -> Path:
        found = self._store.images.get(gender, {}).get(nfc(stem))
        if found is None:
            raise HTTPException(404, f"there is no image {stem} in the {gender} originals")
        return found


class RefreshRoutes:
    """The routes of refreshes of one root."""

    def __init__(self, root: DataRoot) -> None:
        self._root, self._refreshing = root, Refreshing(root)
        self.router = router = APIRouter()
        router.add_api_route("/api/plan", self.plan, methods=["GET"])
        router.add_api_route("/api/refreshes", self.refreshes, methods=["GET"])
        router.add_api_route("/api/refreshes", self.start, methods=["POST"], status_code=202)
        router.add_api_route("/api/refreshes/stop", self.stop, methods=["POST"], status_code=202)
        router.add_api_route(
            "/picture/refresh/{refresh_id}/{when}/{name}", self.picture, methods=["GET"]
        )

    def plan(self) -> Response:
        """The plan of a refresh, as JSON."""
        return Response(self._refreshing.plan(), media_type="application/json")

    def refreshes(self) -> dict[str, Any]:
        """The records of refreshes, whether one is starting, and the last error."""
        starting, problem = self._refreshing.is_starting(), self._refreshing.problem()
        return {"refreshes": self._refreshing.records(), "starting": starting, "problem": problem}

    def start(self, new: NewRefresh) -> dict[str, Any]:
        """Start a refresh."""
        self._refreshing.start(new.warm_start)
        return {}

    def stop(self) -> dict[str, Any]:
        """Stop the running refresh."""
        self._refreshing.stop()
        return {}

    def picture(self, refresh_id: str, when: str, name: str) -> Response:
        """A picture of a refresh's record, before or after."""
        results = (result for record in self._refreshing.records() for result in record["results"])
        known = {p for result in results for pair in result["pictures"] for p in pair.values()}
        path = f"{refresh_id}/{when}/{name}"
        if path not in known:
            raise HTTPException(404, "there is no such picture")
        return FileResponse(self._root.refreshes / path, media_type="image/jpeg")


def _jpeg(make: Callable[[], bytes], headers: dict[str, str] = FOR_A_YEAR) -> Response:
    try:
        return Response(make(), media_type="image/jpeg", headers=headers)
    except (UnusableImage, OSError) as e:
        raise HTTPException(422, f"no picture: {e}") from e


def labels_of(root: DataRoot, store: LabelStore, attribute: str) -> dict[str, Any]:
    """Everything that the page shows of an attribute: columns of properties, with an entry for each
    image, women first.

    ``version`` changes with the picture. ``predicted``, ``uncertainty``, ``suspicion`` and ``next``
    are those of the last ``label_review``; ``suspicion`` is empty if the label was changed or
    confirmed since, ``next`` if the image has a label."""
    problem, values = "", dict[Key, float]()
    # read before the values, so that a change between the two is shown twice and not lost
    cursor = max((c.id for c in store.history()), default=0)
    try:
        values = store.values(attribute)
    except ContractError as e:
        problem = str(e)
    changes = store.history(attribute)
    confirmed = {(c.gender, c.stem): c.before == c.after and not c.undoes for c in changes}
    keys = [(gender, stem) for gender, files in store.find_images().items() for stem in files]
    table = pd.DataFrame(keys, columns=["gender", "stem"])
    table["version"] = [_version(root, g, store.images[g][s]) for g, s in keys]
    table["value"] = [values.get(k) for k in keys]
    review = read_review(root, attribute)
    table = table.merge(
        review.rename(columns={"value": "reviewed"}), on=["gender", "stem"], how="left"
    )
    same = (table.value == table.reviewed) | (table.value.isna() & table.reviewed.isna())
    agreed = pd.Series([confirmed.get(k, False) for k in keys], dtype=bool)
    table.loc[~same | agreed, "suspicion"] = None
    table.loc[table.value.notna(), "next"] = None
    columns = [
        "gender",
        "stem",
        "version",
        "value",
        "predicted",
        "uncertainty",
        "suspicion",
        "next",
    ]
    shown = table[columns].astype(object).where(table[columns].notna(), None)
    return {
        "attribute": attribute,
        "meaning": MEANINGS[attribute],
        "columns": {c: shown[c].tolist() for c in columns},
        "cursor": cursor,
        "reviewed": len(review) > 0,
        "problem": problem,
    }


def read_review(root: DataRoot, attribute: str) -> pd.DataFrame:
    """The table that ``label_review`` wrote for an attribute (``REVIEW_COLUMNS``); without rows if
    there is none yet."""
    try:
        return read_label_review(root.label_review(attribute))
    except FileNotFoundError:
        return pd.DataFrame(
            {c: pd.Series(dtype=str if c in ("gender", "stem") else float) for c in REVIEW_COLUMNS}
        )


def example_of(root: DataRoot, store: LabelStore, attribute: str, level: float) -> Key | None:
    """The labelled image that shows ``level`` best: the one whose out-of-fold prediction is nearest
    to it; without a review the first one, without labels None."""
    try:
        values = store.values(attribute)
    except ContractError:
        return None
    there = [k for k, v in values.items() if v == level and k[1] in store.images.get(k[0], {})]
    review = read_review(root, attribute)
    distance = dict(
        zip(
            zip(review.gender, review.stem, strict=True),
            (review.predicted - level).abs(),
            strict=True,
        )
    )
    return min(there, key=lambda k: distance.get(k, 1.0), default=None)


class Refreshing:
    """Starts and stops refreshes of a root, which are separate processes, and reads their
    records."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def plan(self) -> bytes:
        """The plan of a refresh as JSON: the output of ``gaip3 refresh --dry-run --json``. Raises
        ``ValueError`` with its error message."""
        try:
            done = subprocess.run(
                [*self._command(), "--dry-run", "--json"],
                capture_output=True,
                timeout=120,
                cwd=REPOSITORY,
            )
        except subprocess.TimeoutExpired as e:
            raise ValueError(
                "the plan is not ready after two minutes; the machine may be busy: try again later"
            ) from e
        if done.returncode:
            raise ValueError(_complaint(done.stderr.decode(errors="replace")))
        return done.stdout.strip().splitlines()[-1]

    def start(self, warm_start: bool) -> None:
        """Start a refresh. Raises ``ValueError`` if one that was started here is running; one that
        was started elsewhere is detected by the new refresh itself."""
        with self._lock:
            if self.is_starting():
                raise ValueError("a refresh is running")
            self._root.refresh_log.parent.mkdir(parents=True, exist_ok=True)
            with self._root.refresh_log.open("wb") as log:
                self._process = subprocess.Popen(
                    [*self._command(), *(["--warm-start"] if warm_start else [])],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=REPOSITORY,
                    start_new_session=True,
                )

    def stop(self) -> None:
        """Interrupt the running refresh. Trainings continue from their checkpoints when it is
        started again. Raises ``ValueError`` if it runs on another machine."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            return
        for record in self.records():
            if record["state"] != "running":
                continue
            host, pid, _ = record["process"].rsplit(":", 2)
            if not of_this_host(record["process"]):
                raise ValueError(f"the refresh runs on {host}: stop it there")
            os.kill(int(pid), signal.SIGINT)

    def is_starting(self) -> bool:
        """Whether a refresh that was started here is running, with or without a record yet."""
        return bool(self._process) and self._process.poll() is None  # type: ignore[union-attr]

    def problem(self) -> str:
        """The error message of the last refresh that was started here; empty if it did not fail."""
        if self._process and self._process.poll():
            return _complaint(self._root.refresh_log.read_text(encoding="utf-8", errors="replace"))
        return ""

    def records(self) -> list[dict[str, Any]]:
        """The latest refreshes, newest first."""
        from gaip3_pipeline.refresh.record import read_records

        return read_records(self._root)

    def _command(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "gaip3_pipeline.cli",
            "refresh",
            "--root",
            str(self._root.path),
        ]


def _version(root: DataRoot, gender: str, original: Path) -> int:
    """A number that changes with the original and with the resized image, which a refresh makes."""
    times = [0]
    for path in (original, root.resized_picture(gender, stem_of(original))):
        with suppress(OSError):
            times.append(path.stat().st_mtime_ns // 1_000_000)
    return max(times)


def _complaint(text: str) -> str:
    """The lines from click's last ``Error:`` on, or the last line."""
    lines = text.strip().splitlines() or ["it printed nothing"]
    at = max(
        (i for i, line in enumerate(lines) if line.startswith("Error: ")), default=len(lines) - 1
    )
    return "\n".join(lines[at:]).removeprefix("Error: ")


def _user() -> str:
    try:
        return getpass.getuser()[:NAME]
    except (OSError, KeyError):
        return "me"
