"""The process that holds the generator for the studio: its start and end, and the protocol over its
pipes.

It is a process and not a thread for three reasons: importing TensorFlow holds the interpreter's
lock for seconds and would block the label page, a generator that runs out of memory must not end
the label page, and a process returns all its memory when nobody uses the studio. A message is a
head in JSON and a body of bytes; nothing is pickled."""

import asyncio
import base64
import io
import json
import os
import shlex
import signal
import struct
import sys
import traceback
from asyncio.subprocess import PIPE, Process
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image, UnidentifiedImageError
from pydantic import TypeAdapter

from gaip3_pipeline.environment import EnvironmentVariableError, check
from gaip3_pipeline.imaging.contact_sheet import data_url
from gaip3_pipeline.imaging.decode import UnusableImage
from gaip3_pipeline.imaging.transform import Box, encode_jpeg
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.mlflow_tracking import ModelVersion
from gaip3_pipeline.sampling.recipe import FACES, Face, Pair, RecipeError, recipe_in, write_png
from gaip3_pipeline.stores import StoreError
from gaip3_pipeline.tables.problems import ContractError
from gaip3_pipeline.web.registered import Generators, named

if TYPE_CHECKING:
    from gaip3_pipeline.studio.faces import Studio

IDLE = 900  # seconds after which an unused process ends
_PREVIEW_QUALITY = 90  # of the JPEG of the whole photograph
STUDIOS = 3  # generators in memory: the root's own, champion and candidate
_LENGTHS = struct.Struct("!II")
_FACES = TypeAdapter(list[Face])


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    media_type: str
    body: bytes


class StudioProcess:
    """The process as the server uses it: started by the first question, ended after ``IDLE``
    seconds without one."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._process: Process | None = None
        self._idle: asyncio.TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process runs, so that a question does not have to start it."""
        return self._process is not None and self._process.returncode is None

    async def ask(self, question: tuple[dict[str, Any], bytes]) -> Answer:
        """The answer to a question, which is a head and a body; one at a time. If the process died,
        the next question starts it again."""
        head, body = question
        if self._idle:
            self._idle.cancel()
        if not self.is_running:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", __name__, str(self._root.path), stdin=PIPE, stdout=PIPE
            )
        process = self._process
        assert process
        assert process.stdin
        assert process.stdout
        try:
            text = json.dumps(head).encode()
            process.stdin.write(_LENGTHS.pack(len(text), len(body)) + text + body)
            await process.stdin.drain()
            lengths = _LENGTHS.unpack(await process.stdout.readexactly(_LENGTHS.size))
            header, answer = [await process.stdout.readexactly(n) for n in lengths]
        except (OSError, asyncio.IncompleteReadError):
            await self.close()
            message = (
                "the process of the generator has ended, perhaps because memory ran out; the next"
                " picture starts it again"
            )
            return _complaint(500, message)
        self._idle = asyncio.get_running_loop().call_later(IDLE, self._end)
        return Answer(**json.loads(header), body=answer)

    async def close(self) -> None:
        """End the process."""
        process = self._process
        self._end()
        if process:
            await process.wait()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process:
            with suppress(ProcessLookupError):
                process.kill()  # safe, since it writes no files


class _Work:
    """The work of the process: a method for each value of ``do`` in a head."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._generators = Generators(root)
        self._studios: OrderedDict[Pair, Studio] = OrderedDict()

    def answer(self, head: dict[str, Any], body: bytes) -> Answer:
        """The answer to a question; an error of the request is reported in one line."""
        try:
            return getattr(self, head["do"])(head, body)
        except (
            RecipeError,
            UnusableImage,
            ContractError,
            EnvironmentVariableError,
            StoreError,
        ) as e:
            return _complaint(422, str(e))
        except FileNotFoundError as e:
            lacking = f"there is no {e.filename}" if e.filename else str(e)
            return _complaint(
                422, f"{lacking}: run gaip3 refresh --root {shlex.quote(str(self._root.path))}"
            )
        except Exception:
            traceback.print_exc()
            # what went wrong is for whoever runs the server; TensorFlow's lines help nobody else
            return _complaint(500, "the generator failed: the output of gaip3 label says why")

    def faces(self, head: dict[str, Any], _body: bytes) -> Answer:
        """Faces with all their values, and their pictures."""
        studio = self._studio(head)
        faces = studio.resolved(_FACES.validate_python(head["faces"]))
        return _faces_answer(studio, faces)

    def retouch(self, head: dict[str, Any], _body: bytes) -> Answer:
        """As :meth:`faces`, retouched."""
        studio = self._studio(head)
        faces, reasons = studio.retouched(_FACES.validate_python(head["faces"]), head["fidelity"])
        return _faces_answer(studio, faces, reasons=reasons)

    def photograph(self, head: dict[str, Any], body: bytes) -> Answer:
        """As :meth:`faces`, for the face of a photograph, with what was cut out of it, the whole
        photograph (unless ``box`` is in ``head``, so that the page has it), and how far it is from
        the training pictures; for a picture of the studio, the faces of its recipe. A file of
        another kind is refused before a model is loaded."""
        if not _is_picture(body):
            return _complaint(
                415, "not a picture that can be read: choose a JPEG or PNG, or save it as one"
            )
        studio, recipe = self._studio(head), recipe_in(body)
        if recipe:
            theirs, ours = (
                named(recipe.model, recipe.detail_model),
                named(studio.pair.version, studio.pair.detail_version),
            )
            if recipe.model != studio.pair.version or recipe.detail_model not in (
                None,
                studio.pair.detail_version,
            ):
                other = f"this picture was drawn by {theirs}, and the studio has {ours}"
                raise RecipeError(
                    f"{other}: gaip3 generate --from draws it again if MLflow's registry has that"
                    " pair"
                )
            return _faces_answer(
                studio, studio.resolved(recipe.faces[:FACES]), of=len(recipe.faces)
            )
        box = Box(*head["box"]) if head.get("box") else None
        found, share = studio.photograph(body, box), studio.settings.images.crop
        more: dict[str, Any] = {"cut": data_url(write_png(found.cut), "png")}
        if not box:
            whole = encode_jpeg(studio.preview(body), _PREVIEW_QUALITY)
            more |= {"whole": data_url(whole), "box": [share, 0, 1 - share, 1]}
        if found.is_far:
            more["far"] = {"share": found.farther_than, "held_out": found.held_out}
        return _faces_answer(studio, [found.face], **more)

    def png(self, head: dict[str, Any], _body: bytes) -> Answer:
        """One PNG with its recipe."""
        return Answer(
            200, "image/png", self._studio(head).png(_FACES.validate_python(head["faces"]))
        )

    def samples(self, head: dict[str, Any], _body: bytes) -> Answer:
        """Faces with all their values, and JPEGs of the quality of the samples."""
        from gaip3_pipeline.sampling.draw import JPEG_QUALITY

        studio = self._studio(head)
        faces = studio.resolved(_FACES.validate_python(head["faces"]))
        jpegs = [
            base64.b64encode(encode_jpeg(p, JPEG_QUALITY)).decode() for p in studio.pictures(faces)
        ]
        return _json({"values": [face.values for face in faces], "jpegs": jpegs})

    def models(self, _head: dict[str, Any], _body: bytes) -> Answer:
        """The registered generators that have an alias, with their figures; if it is a single one,
        also the version before, as ``earlier``."""
        versions = self._generators.registered()
        shown = [_shown(v) for v in versions if v.aliases]
        before = next((v for v in versions if not v.aliases), None)
        if len(shown) == 1 and before:
            shown.append(_shown(before) | {"aliases": ["earlier"]})
        return _json({"models": shown})

    def _studio(self, head: dict[str, Any]) -> "Studio":
        check()
        pair = self._generators.find(head.get("model"))
        if pair not in self._studios:
            from gaip3_pipeline.settings import load
            from gaip3_pipeline.studio.faces import Studio

            self._studios[pair] = Studio(self._root, load(self._root), pair)
        self._studios.move_to_end(pair)
        while len(self._studios) > STUDIOS:
            self._studios.popitem(last=False)
        return self._studios[pair]


def _is_picture(data: bytes) -> bool:
    """Whether a file begins as a picture does."""
    try:
        Image.open(io.BytesIO(data)).close()
    except UnidentifiedImageError:
        return False
    except Exception:  # damaged, or too large: the decoder names the reason
        return True
    return True


def _shown(version: ModelVersion) -> dict[str, Any]:
    return {
        "number": version.number,
        "aliases": version.aliases,
        "model": version.data_version,
        "figures": version.figures,
    }


def _faces_answer(studio: "Studio", faces: list[Face], **more: Any) -> Answer:
    pictures = [data_url(write_png(p), "png") for p in studio.pictures(faces)]
    dumped = [face.model_dump(exclude_none=True) for face in faces]
    groups = [f"{h}×{w}" for h, w, _ in studio.nvae.latent_shapes]
    return _json(
        {
            "model": studio.pair.version,
            "groups": groups,
            "faces": dumped,
            "pictures": pictures,
            **more,
        }
    )


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, "application/json", json.dumps(value, allow_nan=False).encode())


def _complaint(status: int, text: str) -> Answer:
    return _json({"detail": text}, status)


def serve(root: DataRoot, questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer ``questions`` until their stream ends."""
    work = _Work(root)
    while lengths := questions.read(_LENGTHS.size):
        head, body = (questions.read(n) for n in _LENGTHS.unpack(lengths))
        answer = work.answer(json.loads(head), body)
        header = json.dumps({"status": answer.status, "media_type": answer.media_type}).encode()
        answers.write(_LENGTHS.pack(len(header), len(answer.body)) + header + answer.body)
        answers.flush()


def main() -> None:
    """Serve the root of the first argument over standard input and output."""
    # Ctrl-C in a terminal also reaches this process; the server ends it instead
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to standard error, not between the answers
    serve(DataRoot(Path(sys.argv[1])), sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
