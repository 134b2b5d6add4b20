"""The studio's routes: faces, retouching, photographs, downloads.

Requests to the generator are queued (``turns``) and answered by a separate process
(``studio_process``), so that the label page never waits for them."""

import asyncio
import base64
import io
import json
import uuid
import zipfile
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, get_args

import pandas as pd
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from gaip3_pipeline.attributes import ATTRIBUTES, MEANINGS
from gaip3_pipeline.layout import DataRoot, is_trained
from gaip3_pipeline.models.storage import load_config
from gaip3_pipeline.refresh.record import read_records
from gaip3_pipeline.sampling.recipe import FACES, Drawn, Face
from gaip3_pipeline.settings import TRANSPORT, load
from gaip3_pipeline.tables.contracts import samples_csv
from gaip3_pipeline.versions import read_figures
from gaip3_pipeline.web.registered import Generators, command
from gaip3_pipeline.web.studio_process import Answer, StudioProcess
from gaip3_pipeline.web.turns import Busy, Replaced, Turns

Filmed = Literal["nvae_weights", "detail_weights"]  # the assets with a filmstrip
UPLOADS = "/api/studio/photograph"
UPLOAD = 40_000_000  # bytes of a photograph: those of phones and cameras take up to 30 MB
TURN = 16  # faces that are drawn in one turn
LEAST = 0.05  # share of a photograph's width and height that may be cut out
_UPLOADING = 2  # photographs in memory at a time; others wait unread

Name = Annotated[str, Field(pattern="^[A-Za-z0-9._-]{1,60}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Model = Annotated[str | None, Field(pattern="^[0-9a-f]{64}$")]  # a content hash of weights


class Asked(BaseModel):
    """The fields of all requests: the browser tab and pane that ask, and the generator, by default
    the root's own."""

    tab: Name
    pane: Name
    model: Model = None


class Faces(Asked):
    """A request to draw faces in one turn."""

    faces: Annotated[list[Face], Field(min_length=1, max_length=TURN)]


class Retouching(Faces):
    """A request to retouch faces with a fidelity."""

    fidelity: Annotated[float, Field(gt=0, le=1)]


class Picture(Asked):
    """A request for one picture of several faces."""

    faces: Annotated[list[Face], Field(min_length=1, max_length=FACES)]


def slider_range(root: DataRoot, attribute: str) -> list[float]:
    """The least and the greatest value that the root's generator supports; 0 and 1 if its figures
    do not name them."""
    figures = read_figures(root, "nvae_weights")
    return [figures.get(f"from_{attribute}", 0.0), figures.get(f"to_{attribute}", 1.0)]


def training_facts(root: DataRoot) -> dict[str, Any]:
    """What the root knows of its generator's training: the number of training pictures, the
    folders that they are from, epochs, seconds of the last run (None where no refresh made it) and
    the size of its faces."""
    figures, config = read_figures(root, "nvae_weights"), load_config(root.nvae)
    kept = read_figures(root, "final_dataset").get("kept", {})
    steps = (record["assets"].get("nvae_weights") for record in read_records(root))
    return {
        "pictures": figures.get("n_train"),
        "folders": sorted({name.rpartition("/")[2] for name, n in kept.items() if n}),
        "epochs": figures.get("epochs"),
        "seconds": next((step["seconds"] for step in steps if step and step["seconds"]), None),
        "height": config["height"],
        "width": config["width"],
    }


class StudioRoutes:
    """The routes of one root."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._generators = Generators(root)
        self._process = StudioProcess(root)
        self._turns: Turns[tuple[dict[str, Any], bytes], Answer] = Turns(self._process.ask)
        self._uploading = asyncio.Semaphore(_UPLOADING)
        self.router = router = APIRouter(prefix="/api/studio")
        router.add_api_route("", self.about, methods=["GET"])
        router.add_api_route("/faces", self.faces, methods=["POST"])
        router.add_api_route("/retouch", self.retouch, methods=["POST"])
        router.add_api_route("/photograph", self.photograph, methods=["POST"])
        router.add_api_route("/picture.png", self.picture, methods=["POST"])
        router.add_api_route("/models", self.models, methods=["GET"])
        router.add_api_route("/progress/{asset}.jpg", self.progress, methods=["GET"])
        router.add_api_route("/faces.zip", self.zip, methods=["GET"])

    async def close(self) -> None:
        """End the process that holds the generator."""
        await self._process.close()

    def about(self) -> dict[str, Any]:
        """The settings and abilities that the page needs before the first face; loads no model."""
        settings, root = load(self._root), self._root
        has_detail = self._generators.has_detail()
        inputs = [root.feature_extractor, *(root.input_model(a) for a in ATTRIBUTES)]
        lies = root.aggregate_posterior.exists() or settings.retouch.method != TRANSPORT
        return {
            "ready": is_trained(root.nvae),
            "running": self._process.is_running,
            "command": command(root),
            "generate": command(root, "generate"),
            "training": training_facts(root) if is_trained(root.nvae) else None,
            "attributes": [
                {"name": a, "meaning": MEANINGS[a], "range": slider_range(root, a)}
                for a in ATTRIBUTES
            ],
            "detail": settings.samples.detail if has_detail else None,
            # a refresh has made a generator, and not yet its detail network
            "detail_waits": is_trained(root.detail) and not has_detail,
            "temperature": settings.samples.temperature,
            "guidance": settings.samples.guidance,
            "seed": settings.samples.seed,
            "progress": [a for a in get_args(Filmed) if root.picture(a, "progress").exists()],
            "can_retouch": lies
            and all(is_trained(m) for m in (root.critic, root.control_regressor)),
            "can_encode": all(is_trained(m) for m in inputs),
            "upload": UPLOAD,
            "turn": TURN,
        }

    async def faces(self, asked: Faces) -> Response:
        """Faces with all their values, and their pictures."""
        return await self._ask(asked, {"do": "faces", "faces": _dumped(asked.faces)})

    async def retouch(self, asked: Retouching) -> Response:
        """As :meth:`faces`, retouched."""
        return await self._ask(
            asked, {"do": "retouch", "faces": _dumped(asked.faces), "fidelity": asked.fidelity}
        )

    async def photograph(
        self,
        request: Request,
        tab: Name,
        pane: Name,
        model: Model = None,
        box: Annotated[list[Share] | None, Query(min_length=4, max_length=4)] = None,
    ) -> Response:
        """The face of a photograph, which is the body of the request, in ``box``: left, top, right,
        bottom (None: cut as the pipeline cuts). For a downloaded picture of the studio, the faces
        of its recipe."""
        if box and min(box[2] - box[0], box[3] - box[1]) < LEAST:
            return JSONResponse({"detail": f"a part of less than {LEAST:g} of the photograph"}, 422)
        async with self._uploading:
            head = {"do": "photograph", "box": box}
            return await self._ask(
                Asked(tab=tab, pane=pane, model=model), head, await request.body()
            )

    async def picture(self, asked: Picture) -> Response:
        """Faces as one PNG with its recipe."""
        return await self._ask(asked, {"do": "png", "faces": _dumped(asked.faces)})

    async def models(self, tab: Name) -> Response:
        """The registered generators that have an alias, with their figures."""
        return await self._ask(Asked(tab=tab, pane="models"), {"do": "models"})

    def progress(self, asset: Filmed) -> Response:
        """The filmstrip of the last training of ``asset``."""
        path = self._root.picture(asset, "progress")
        if not path.exists():
            return JSONResponse({"detail": f"there is no filmstrip of {asset}"}, 404)
        return FileResponse(path, headers={"Cache-Control": "no-cache"})

    async def zip(
        self,
        tab: Name,
        *,
        n: Annotated[int, Query(ge=1, le=10_000)],
        seed: Annotated[int, Query(ge=0, lt=2**53 - 10_000)],
        temperature: Annotated[float, Query(ge=0, le=2)],
        guidance: Annotated[float, Query(ge=0, le=10)],
        detail: Annotated[float, Query(ge=0, le=1)] = 0.0,
        prior: Literal["standard", "aggregate"] = "standard",
        values: Annotated[str, Query(max_length=200)] = ",,,,",
    ) -> Response:
        """A zip of ``n`` pictures and their table, in the format of the samples. ``values``: five
        numbers separated by commas; a missing one is chosen by the seed."""
        own = [float(v) if v else None for v in values.split(",")]
        ways: dict[str, Any] = {
            "temperature": temperature,
            "guidance": guidance,
            "prior": prior,
            "detail": detail,
        }
        drawn = [Face(latents=Drawn(seed=seed + i), values=own, **ways) for i in range(n)]
        first = await self._ask(
            Asked(tab=tab, pane="zip"), {"do": "samples", "faces": _dumped(drawn[:1])}
        )
        if first.status_code != 200:  # once the zip has begun, an error can only abort it
            return first
        headers = {"Content-Disposition": f'attachment; filename="faces-{seed}-{n}.zip"'}
        return StreamingResponse(
            self._zipped(tab, drawn), media_type="application/zip", headers=headers
        )

    async def _zipped(self, tab: str, faces: list[Face]) -> AsyncIterator[bytes]:
        """The zip, turn by turn, so that the pictures of only one turn are in memory."""
        out, pane = _Stream(), uuid.uuid4().hex
        rows: list[dict[str, Any]] = []
        with zipfile.ZipFile(out, "w") as archive:  # JPEGs do not compress
            for start in range(0, len(faces), TURN):
                some = faces[start : start + TURN]
                asked, head = (
                    Asked(tab=f"{tab}.zip", pane=pane),
                    {"do": "samples", "faces": _dumped(some)},
                )
                while (answer := await self._ask(asked, head)).status_code == 503:
                    await asyncio.sleep(1)
                if answer.status_code != 200:
                    # abort, since a zip that lacks pictures must not seem complete
                    raise RuntimeError(bytes(answer.body).decode())
                made = json.loads(bytes(answer.body))
                for face, values, jpeg in zip(some, made["values"], made["jpegs"], strict=True):
                    assert isinstance(face.latents, Drawn)
                    name = f"samples/{len(rows):06d}.jpg"
                    archive.writestr(name, base64.b64decode(jpeg))
                    row = {
                        "image_path": name,
                        **dict(zip(ATTRIBUTES, values, strict=True)),
                        "seed": face.latents.seed,
                    }
                    rows.append(
                        row
                        | face.model_dump(include={"temperature", "guidance", "prior", "detail"})
                    )
                yield out.taken()
            archive.writestr("samples/samples.csv", samples_csv(pd.DataFrame(rows)))
        yield out.taken()

    async def _ask(self, asked: Asked, head: dict[str, Any], body: bytes = b"") -> Response:
        try:
            answer = await self._turns.ask(
                asked.tab, asked.pane, (head | {"model": asked.model}, body)
            )
        except Replaced:
            # the page ignores this answer; a 4xx would fill the browser's console
            return Response(status_code=204)
        except Busy:
            return JSONResponse(
                {"detail": "too many pictures are requested at the same time: try again"},
                503,
                {"Retry-After": "1"},
            )
        return Response(
            answer.body,
            answer.status,
            media_type=answer.media_type,
            headers={"Cache-Control": "no-store"},
        )


class _Stream(io.RawIOBase):
    """A stream that a zip is written to and that is read out piece by piece."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """What was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _dumped(faces: list[Face]) -> list[dict[str, Any]]:
    return [face.model_dump(exclude_none=True) for face in faces]
