"""The web application of one data root: labels, pictures, history and refreshes over HTTP, the
studio (``studio``), and the page itself.

A label is acknowledged when it is on disk (``tables.label_store``). A refresh runs in a process of
its own, so that it continues when this one ends and is the same as one started in a terminal; the
page shows it from its record."""

import getpass
import os
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field, ValidationError

from gaip3_pipeline.attributes import ATTRIBUTES, MEANINGS
from gaip3_pipeline.evaluation.check_texts import CHECK_TEXTS
from gaip3_pipeline.evaluation.review import look_wrong
from gaip3_pipeline.evaluation.wording import asset_words, figure_words
from gaip3_pipeline.features.regions import REGIONS
from gaip3_pipeline.imaging.decode import UnusableImage
from gaip3_pipeline.layout import INDEX, PAGE, REPOSITORY, DataRoot
from gaip3_pipeline.processes import gaip3, of_this_host
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.label_store import Change, Edit, Key, LabelConflict, LabelStore
from gaip3_pipeline.tables.names import nfc, printable
from gaip3_pipeline.tables.problems import ContractError, clear, complaint
from gaip3_pipeline.web.examples import LEVELS, Examples
from gaip3_pipeline.web.guard import Guard
from gaip3_pipeline.web.pictures import Pictures
from gaip3_pipeline.web.planning import Planner
from gaip3_pipeline.web.reviews import Similar, read_review
from gaip3_pipeline.web.snapshots import SnapshotRoutes
from gaip3_pipeline.web.studio import UPLOAD, UPLOADS, StudioRoutes

NAME = 60  # characters of a person's name
# safe to cache, since a picture's address changes with the picture
FOR_A_YEAR = {"Cache-Control": "private, max-age=31536000, immutable"}
NO_PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'


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


class NewExample(BaseModel):
    """A picture that is to be the example of the level that it is labelled with, or no longer."""

    attribute: str
    gender: str
    stem: str
    chosen: bool


class Person(BaseModel):
    """The person who undoes a change, and the browser tab."""

    who: Annotated[str, Field(min_length=1, max_length=NAME)]
    session: Annotated[str, Field(max_length=NAME)] = ""


def build_app(
    root: DataRoot, token: str = "", links: Callable[[], dict[str, str]] = dict
) -> FastAPI:
    """The web application of ``root``. A ``token`` that is not empty is required of clients;
    ``links``: other pages, such as Dagster's, by name."""
    studio, planner = StudioRoutes(root), Planner(root)

    @asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        planner.prepare()
        yield
        planner.close()
        await studio.close()

    app = FastAPI(
        title="gaip3 labels", docs_url=None, redoc_url=None, openapi_url=None, lifespan=running
    )
    app.add_middleware(Guard, token=token, larger={UPLOADS: UPLOAD})
    for error, status in ((ContractError, 422), (ValueError, 422), (LabelConflict, 409)):
        app.add_exception_handler(error, _answered_with(status))
    for malformed in (RequestValidationError, ValidationError):
        app.add_exception_handler(malformed, _malformed)
    app.add_exception_handler(OSError, _unwritten)
    app.include_router(studio.router)
    app.include_router(LabelRoutes(root, links).router)
    app.include_router(RefreshRoutes(root, planner).router)
    app.include_router(SnapshotRoutes(root).router)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


def _answered_with(status: int) -> Callable[[Request, Exception], Response]:
    return lambda _request, error: JSONResponse({"detail": clear(str(error))}, status)


def _malformed(_request: Request, error: Any) -> Response:
    """The first thing that is wrong with a request, in a line. FastAPI's own answer quotes the
    request, of which not every part can be sent back as JSON."""
    first = error.errors()[0]
    said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return JSONResponse({"detail": clear(printable(said))}, 422)


def _unwritten(_request: Request, error: Exception) -> Response:
    """A disk that is full or takes no writes, in one line with the path."""
    assert isinstance(error, OSError)
    line = f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")
    return JSONResponse({"detail": line}, 507)


class LabelRoutes:
    """The routes of the label page of one root."""

    def __init__(self, root: DataRoot, links: Callable[[], dict[str, str]]) -> None:
        self._root, self._links = root, links
        self._store, self._pictures = LabelStore(root), Pictures(root, load(root).images)
        self._examples, self._similar = Examples(root, self._store), Similar(root)
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
        router.add_api_route("/api/similar/{attribute}/{gender}/{stem}", self.similar)
        router.add_api_route("/api/examples", self.choose_example, methods=["POST"])
        router.add_api_route("/picture/region/{attribute}/{gender}/{stem}", self.region)
        router.add_api_route("/picture/thumbnail/{gender}/{stem}", self.thumbnail, methods=["GET"])
        router.add_api_route("/picture/large/{gender}/{stem}", self.large, methods=["GET"])
        router.add_api_route("/picture/example/{attribute}/{level}", self.example, methods=["GET"])
        router.add_api_route("/picture/asset/{name}", self.asset, methods=["GET"])

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
            "links": self._links(),
            "attributes": [
                {
                    "name": a,
                    "meaning": MEANINGS[a],
                    # width over height of its region; null: the whole picture shows the value
                    "aspect": REGIONS[a].aspect if a in REGIONS else None,
                }
                for a in ATTRIBUTES
            ],
            "levels": LEVELS,
        }

    def labels(self, attribute: str) -> dict[str, Any]:
        """All that the page shows of an attribute: see :func:`labels_of`."""
        _known(attribute)
        chosen = self._examples.chosen(attribute)
        examples = {f"{level:g}": "/".join(key) for level, key in chosen.items()}
        return labels_of(self._root, self._store, attribute) | {"examples": examples}

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

    def region(self, attribute: str, gender: str, stem: str) -> Response:
        """The region of an original in which the value shows."""
        _known(attribute)
        return _jpeg(lambda: self._pictures.region(attribute, self._image(gender, stem)))

    def similar(self, attribute: str, gender: str, stem: str) -> dict[str, list[str]]:
        """The images that are most similar in an attribute, as ``gender/stem``, itself first."""
        _known(attribute)
        self._image(gender, stem)
        return {"images": ["/".join(k) for k in self._similar.near(attribute, (gender, nfc(stem)))]}

    def example(
        self, attribute: str, level: int, view: Literal["large", "region"] = "large"
    ) -> Response:
        """A picture of a level: a labelled one or, without any, a painted one."""
        _known(attribute)
        if not 0 <= level < len(LEVELS):
            raise HTTPException(404, "there is no such level")
        key, value = self._examples.of(attribute, LEVELS[level]), LEVELS[level]
        headers = {"Cache-Control": "no-cache"}  # labels change
        if key and view == "region":
            return _jpeg(lambda: self._pictures.region(attribute, self._image(*key)), headers)
        if key:
            return _jpeg(lambda: self._pictures.large(self._image(*key)), headers)
        return _jpeg(lambda: self._pictures.painted(attribute, value, view == "region"), headers)

    def choose_example(self, new: NewExample) -> dict[str, Any]:
        """Choose the example of a level, or leave it to the pipeline again."""
        _known(new.attribute)
        self._image(new.gender, new.stem)
        self._examples.choose(new.attribute, (new.gender, nfc(new.stem)), new.chosen)
        return {}

    def asset(self, name: str, width: Annotated[int, Query(ge=1, le=4096)] = 4096) -> Response:
        """The main picture of an asset, for Dagster's pages on another port of this machine, which
        are of another origin (the guard refuses other sites), at most ``width`` pixels wide;
        nothing to see while there is none."""
        headers = {"Cache-Control": "no-cache", "Cross-Origin-Resource-Policy": "cross-origin"}
        picture = self._root.picture(name)
        if picture not in self._root.all_pictures():
            return Response(NO_PICTURE, media_type="image/svg+xml", headers=headers)
        return _jpeg(lambda: self._pictures.fitting(picture, width), headers)

    def _image(self, gender: str, stem: str) -> Path:
        found = self._store.images.get(gender, {}).get(nfc(stem))
        if found is None:
            name, sex = printable(stem), printable(gender)
            raise HTTPException(404, f"there is no image {name} in the {sex} originals")
        return found


class RefreshRoutes:
    """The routes of refreshes of one root."""

    def __init__(self, root: DataRoot, planner: Planner) -> None:
        self._root, self._refreshing, self._planner = root, Refreshing(root, planner), planner
        self.router = router = APIRouter()
        router.add_api_route("/api/plan/prepare", self.prepare, methods=["POST"], status_code=202)
        router.add_api_route("/api/plan", self.plan, methods=["GET"])
        router.add_api_route("/api/refreshes", self.refreshes, methods=["GET"])
        router.add_api_route("/api/refreshes", self.start, methods=["POST"], status_code=202)
        router.add_api_route("/api/refreshes/stop", self.stop, methods=["POST"], status_code=202)
        router.add_api_route(
            "/picture/refresh/{refresh_id}/{when}/{name}", self.picture, methods=["GET"]
        )

    def prepare(self) -> dict[str, Any]:
        """Make ready for a plan, so that it takes a second."""
        self._planner.prepare()
        return {}

    def plan(self) -> Response:
        """The plan of a refresh, as JSON."""
        return Response(self._refreshing.plan(), media_type="application/json")

    def refreshes(self) -> dict[str, Any]:
        """The records of refreshes, what people call their assets and figures (English, Korean),
        whether one is starting, and the last error."""
        records = self._refreshing.records()
        results = [result for record in records for result in record["results"]]
        figures = {f["figure"] for result in results for f in result["figures"]}
        words = {key: figure_words(key) for key in figures}
        words |= {name: asset_words(name) for name in {result["name"] for result in results}}
        lines = {line.partition(" failed: ")[0] for r in records for line in r["failed_checks"]}
        for (asset, check), text in CHECK_TEXTS.items():
            name = f"{asset}: check {check}"
            if name in lines:
                words |= {asset: asset_words(asset), name: text.title, f"{name}?": text.meaning}
        starting, problem = self._refreshing.is_starting(), self._refreshing.problem()
        return {"refreshes": records, "words": words, "starting": starting, "problem": problem}

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


def _known(attribute: str) -> None:
    if attribute not in ATTRIBUTES:
        raise HTTPException(404, f"there is no attribute {printable(attribute)}")


def _jpeg(make: Callable[[], bytes], headers: dict[str, str] = FOR_A_YEAR) -> Response:
    try:
        return Response(make(), media_type="image/jpeg", headers=headers)
    except (UnusableImage, OSError) as e:
        raise HTTPException(422, f"no picture: {e}") from e


def labels_of(root: DataRoot, store: LabelStore, attribute: str) -> dict[str, Any]:
    """Everything that the page shows of an attribute: columns of properties, with an entry for each
    image, women first.

    ``cut_off`` is the least suspicion of a label that looks wrong; null if none does. ``version``
    changes with the picture. ``predicted``, ``uncertainty``, ``suspicion`` and ``next``
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
    images = store.find_images()
    keys = [(gender, stem) for gender, files in images.items() for stem in files]
    table = pd.DataFrame(keys, columns=["gender", "stem"])
    table["version"] = _versions(root, images)
    table["value"] = [values.get(k) for k in keys]
    review = read_review(root, attribute)
    to_check = review.suspicion[look_wrong(review.suspicion.to_numpy(float))]
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
        "cut_off": float(to_check.min()) if len(to_check) else None,
        "problem": problem,
    }


class Refreshing:
    """Starts and stops refreshes of a root, which are separate processes, and reads their
    records."""

    def __init__(self, root: DataRoot, planner: Planner) -> None:
        self._root, self._planner = root, planner
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def plan(self) -> bytes:
        """The plan of a refresh as JSON: the output of ``gaip3 refresh --dry-run --json``. Raises
        ``ValueError`` with its error message."""
        try:
            done = self._planner.plan()
        except subprocess.TimeoutExpired as e:
            raise ValueError(
                "the plan is not ready after two minutes; the machine may be busy: try again later"
            ) from e
        if done.returncode:
            raise ValueError(complaint(done.stderr.decode(errors="replace").strip().splitlines()))
        return done.stdout.strip().splitlines()[-1]

    def start(self, warm_start: bool) -> None:
        """Start a refresh. Raises ``ValueError`` if one that was started here is running; one that
        was started elsewhere is detected by the new refresh itself."""
        with self._lock:
            if self.is_starting():
                raise ValueError("a refresh is running")
            self._root.refresh_log.parent.mkdir(parents=True, exist_ok=True)
            warmly = ["--warm-start"] if warm_start else []
            with self._root.refresh_log.open("wb") as log:
                self._process = subprocess.Popen(
                    gaip3("refresh", "--root", str(self._root.path), *warmly),
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
            printed = self._root.refresh_log.read_text(encoding="utf-8", errors="replace")
            return complaint(printed.strip().splitlines())
        return ""

    def records(self) -> list[dict[str, Any]]:
        """The latest refreshes, newest first."""
        from gaip3_pipeline.refresh.record import read_records

        return read_records(self._root)


def _versions(root: DataRoot, images: dict[str, dict[str, Path]]) -> list[int]:
    """For each original a number that changes with it and with the resized image, which a refresh
    makes."""
    found = []
    for sex, files in images.items():
        # strings, since a path object takes longer than the question to the file system
        folder, suffix = os.path.split(root.resized_picture(sex, ""))
        for stem, original in files.items():
            times = [0]
            for path in (str(original), f"{folder}/{stem}{suffix}"):
                with suppress(OSError):
                    times.append(os.stat(path).st_mtime_ns // 1_000_000)
            found.append(max(times))
    return found


def _user() -> str:
    try:
        return getpass.getuser()[:NAME]
    except (OSError, KeyError):
        return "me"
