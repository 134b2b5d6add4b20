"""Odd input: files and requests that were changed at random, and what the project makes of them.

    python -m drills.mutations [--inputs 500] [--seed 0] [--only KIND ...] [--root FINISHED]

Each input is a sound one with a few changes by Hypothesis: cut, flipped bits, parts removed,
repeated or replaced by what breaks readers. It must succeed or be refused in clear lines: no
traceback, at most 10 s, at most 1 GiB of memory more than before, and no file written outside the
root. ``--root`` is a root with a generator, of which a copy is used; without one, recipes meet a
root without models. What goes wrong is printed, with the input in ``--keep``."""

import argparse
import hashlib
import io
import json
import os
import shutil
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import psutil
from click.testing import CliRunner
from hypothesis import strategies as st
from PIL import Image

from drills import requests
from drills.odd import Draw, mutated, odd_json, try_all
from drills.outcomes import Outcome, begun, report, small_root
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.cli import main as cli
from gaip3_pipeline.imaging.processing import resize_set
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot, is_trained
from gaip3_pipeline.sampling.recipe import CHUNK, Drawn, Face, Recipe, write_png
from gaip3_pipeline.settings import Images
from gaip3_pipeline.setup.remote import push
from gaip3_pipeline.setup.snapshots import Files, find, take
from gaip3_pipeline.tables.hashing import weights_version
from gaip3_pipeline.tables.label_formats import WRITERS
from gaip3_pipeline.tables.label_store import LabelStore
from gaip3_pipeline.tables.names import printable
from gaip3_pipeline.tables.problems import MAX_PROBLEMS, complaint

SECONDS, BYTES = 10.0, 2**30
SHARES = {"pictures": 5, "labels": 4, "label studio": 4, "settings": 3, "recipes": 3}
SHARES |= {"snapshots": 4, "stores": 4, "requests": 5}
FEMALE = IMAGE_SETS[1]
_NAMED = [[], ["--attribute", "mouth"]]
# of files in a snapshot; the first is in the folder for temporary files
PATHS = [
    *("/outside", "../outside", "../../../outside", "original/../../outside", "\0", ".", ""),
    *("original", "a" * 300, "gaip3.toml/x", ".gaip3/labels.lock", ".gaip3/root.id", "x\n"),
]


@dataclass
class Box:
    """A folder for one kind of input: the root in it, a folder for inputs, and files beside them
    that nobody may touch. ``sound`` has the inputs that are changed, ``wrong`` what went
    wrong."""

    folder: Path
    root: DataRoot
    keep: Path | None = None
    sound: dict[str, list[bytes]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    peak: int = 0  # bytes of the process, with the libraries that it has loaded
    most: int = 0  # bytes that one input added
    slowest: float = 0.0

    @property
    def given(self) -> Path:
        return self.folder / "given"


# what is written outside the box is seen by an audit hook, which stays for the process's life
_watched: list[tuple[Path, list[str]]] = []
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {"os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod"}
_TWO_PATHS = {"os.rename", "os.link", "os.symlink"}  # the second is what appears


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    if (
        event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
    ) or event in _CHANGES:
        path = arguments[0]
    elif event in _TWO_PATHS:
        path = arguments[1]
    else:
        return
    if not isinstance(path, str | bytes | os.PathLike):
        return
    allowed, seen = _watched[-1]
    place = os.path.realpath(os.fsdecode(path))
    if not place.startswith((f"{allowed}/", "/dev/", "/proc/self/")) and "__pycache__" not in place:
        seen.append(f"{event} of {place}")


sys.addaudithook(_hook)


@contextmanager
def judged(box: Box, data: bytes) -> Iterator[None]:
    """Time, memory and files of one input."""
    outside: list[str] = []
    before = _beside(box)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    _watched.append((box.folder, outside))
    began, held = time.monotonic(), psutil.Process().memory_info().rss
    try:
        yield
    except Exception as e:  # any is a finding
        note(box, data, f"{type(e).__name__}: {e}"[:300])
    finally:
        seconds, peak = time.monotonic() - began, peak_of("self")
        _watched.pop()
    box.slowest, box.peak = max(box.slowest, seconds), max(box.peak, peak)
    # other work on the machine is not the input's fault
    if seconds > SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)):
        note(box, data, f"took {seconds:.1f} s")
    box.most = max(box.most, peak - held)
    if peak - held > BYTES:
        note(box, data, f"took {(peak - held) / 2**20:,.0f} MiB")
    for line in [*outside, *(f"changed: {p}" for p in _beside(box) ^ before)]:
        note(box, data, f"outside the root: {line}")


def peak_of(process: str) -> int:
    """The most memory that a process has held, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _beside(box: Box) -> set[tuple[str, int, int]]:
    """The files of the box that are not in the root: path, size and time."""
    files = (p for p in box.folder.iterdir() if p not in (box.root.path, box.given))
    return {(str(p), p.lstat().st_size, p.lstat().st_mtime_ns) for p in files}


def note(box: Box, data: bytes, what: str) -> None:
    """Take down that an input went wrong."""
    box.wrong.append(what)
    if box.keep:
        watched = _watched.copy()
        _watched.clear()
        box.keep.mkdir(parents=True, exist_ok=True)
        (box.keep / f"{box.folder.name}-{len(box.wrong):03d}").write_bytes(data)
        _watched.extend(watched)


def run(box: Box, data: bytes, *words: object) -> None:
    """Run ``gaip3`` with ``words``: it succeeds, or complains in clear lines."""
    variables = dict(os.environ)
    with judged(box, data):
        result = CliRunner().invoke(cli, [*map(str, words), "--root", str(box.root.path)])
        os.environ.clear()
        os.environ.update(variables)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        said = complaint(result.output.strip().splitlines()) if result.exit_code else ""
        if result.exit_code and not said.strip():
            note(box, data, "refused without a word")
        if "Traceback" in result.output or len(said.splitlines()) > MAX_PROBLEMS + 1:
            note(box, data, f"not a clear line: {said[:200]!r}")
        if any(printable(line) != line for line in said.split("\n")):
            note(box, data, f"unprintable characters: {said[:300]!r}")
        if len(said) > 1000 * (1 + said.count("\n")):
            note(box, data, f"{len(said)} characters: {said[:200]!r}")


def pictures(box: Box, draw: Draw) -> None:
    """A picture among the originals: it is used, or is a row of the manifest with a reason."""
    name = draw(st.sampled_from(["a.jpg", "a.png", "a.webp", "a.tif", "a.bmp", "a.avif", "a.jpeg"]))
    data = draw(st.sampled_from(box.sound["bombs"])) if not draw(st.integers(0, 7)) else b""
    data = data or mutated(draw, box.sound["pictures"])
    path = box.root.original(FEMALE) / name
    path.write_bytes(data)
    try:
        with judged(box, data):
            made = resize_set(box.root, FEMALE, Images())
            row = made.manifest[made.manifest.source.str.endswith(f"/{name}")]
            if len(row) != 1 or "\n" in f"{row.reason.iloc[0]}":
                note(box, data, f"not one row with a reason: {row.to_dict('records')}")
    finally:
        path.unlink()


def labels(box: Box, draw: Draw) -> None:
    """A label CSV: in the root, then as a file to import."""
    data = mutated(draw, box.sound["labels"])
    words = draw(st.sampled_from(_NAMED))
    place = box.root.hand_labels("mouth")
    before = place.read_bytes()
    place.write_bytes(data)
    run(box, data, "export-labels", "plain", box.given / "out.csv", "--attribute", "mouth")
    place.write_bytes(before)
    _import(box, data, "labels.csv", words)


def label_studio(box: Box, draw: Draw) -> None:
    """An export of Label Studio to import."""
    data = odd_json(draw, box.sound["label studio"])
    _import(box, data, "export.json", draw(st.sampled_from(_NAMED)))


def settings(box: Box, draw: Draw) -> None:
    """A settings file: a plan of a refresh is made with it, or it is refused."""
    data = mutated(draw, SETTINGS, most=2)
    box.root.settings_file.write_bytes(data)
    with_plan = not draw(st.integers(0, 3))
    run(box, data, "generate", "--out", box.given / "faces.png")
    if with_plan:
        run(box, data, "refresh", "--dry-run")


def recipes(box: Box, draw: Draw) -> None:
    """A PNG whose faces are drawn again."""
    [sound] = box.sound["recipes"]
    if draw(st.booleans()):
        picture = write_png(np.zeros((8, 8, 3), np.uint8), Recipe.model_validate_json(sound))
        data = mutated(draw, [picture])
    else:
        data = _png([(b"tEXt", CHUNK.encode() + b"\0" + odd_json(draw, [sound]))])
    file = box.given / "faces.png"
    file.write_bytes(data)
    run(box, data, "generate", "--from", file, "--out", box.given / "again.png")


def snapshots(box: Box, draw: Draw) -> None:
    """The file or the table of a snapshot of the root; the root is listed, compared, restored."""
    root, data = box.root, b""
    pointer = root.snapshot("first").read_text(encoding="utf-8")
    if draw(st.booleans()):
        data = odd_json(draw, [pointer.encode()])
        root.snapshot("second").write_bytes(data)
    else:
        table, data = _odd_table(box, draw, "first")
        manifest = Files(root).add_table(table) if data == b"" else _kept(root, data)
        about = json.loads(pointer) | {"name": "second", "manifest": manifest}
        root.snapshot("second").write_text(json.dumps(about), encoding="utf-8")
        data = data or table.to_csv().encode("utf-8", "surrogatepass")
    for words in (("snapshots",), ("diff", "first", "second"), ("restore", "second")):
        run(box, data, *words)
    _as_before(box)


def stores(box: Box, draw: Draw) -> None:
    """What lies in a store: a pointer, a table or a shard; it is pulled."""
    there = box.given / "there"
    shutil.rmtree(there, ignore_errors=True)
    push(box.root, "first", there.as_uri(), with_pictures=True)
    pointer = next((there / "snapshots").iterdir())
    how = draw(st.sampled_from(["pointer", "table", "bytes of the table", "shard"]))
    name = draw(st.sampled_from([["first"], []]))
    if how == "pointer":
        data = odd_json(draw, [pointer.read_bytes()])
        pointer.write_bytes(data)
    elif how == "shard":
        shard = next((there / "shards").iterdir())
        data = mutated(draw, [shard.read_bytes()])
        shard.write_bytes(data)
    else:
        about = json.loads(pointer.read_bytes())
        [old] = (there / "manifests").iterdir()
        table = _odd(draw, pd.read_parquet(old))
        data = mutated(draw, [old.read_bytes()]) if how != "table" else _parquet(table)
        about["manifest"] = _sha256(data)
        (there / "manifests" / f"{about['manifest']}.parquet").write_bytes(data)
        pointer.write_text(json.dumps(about), encoding="utf-8")
    inner = Box(box.folder, DataRoot(box.folder / "pulled"), box.keep, wrong=box.wrong)
    run(inner, data, "pull", there.as_uri(), *name)
    box.peak, box.most = max(box.peak, inner.peak), max(box.most, inner.most)
    box.slowest = max(box.slowest, inner.slowest)
    shutil.rmtree(inner.root.path, ignore_errors=True)


KINDS: dict[str, Callable[[Box, Draw], None]] = {
    "pictures": pictures,
    "labels": labels,
    "label studio": label_studio,
    "settings": settings,
    "recipes": recipes,
    "snapshots": snapshots,
    "stores": stores,
}
SETTINGS = [
    b'preset = "tiny"\n[images]\nheight = 64\nwidth = 52\ncrop = 0.1\nmax_pixels = 1000000\n',
    b'preset = "demo"\n[nvae]\nepochs = 3\nkl_weights = [0.1, 0.2]\nlearning_rate = 1e-3\n',
    b'[tracking]\nuri = ""\n[storage]\ndagster = ""\n[cluster]\naddress = ""\n',
    b"[presets.own.samples]\nn = 4\n[samples]\nseed = 3\ntemperature = 0.7\nguidance = 2.0\n",
    b'preset = "tiny"\n[input_model_eyes]\n[input_model]\n[retouch]\nfidelity = 0.5\n',
]


def _sound(kind: str, root: DataRoot) -> dict[str, list[bytes]]:
    """The inputs of a kind that are changed. They are made once: Hypothesis draws from them."""
    if kind == "pictures":
        return {kind: _sound_pictures(), "bombs": bombs()}
    made = {"labels": _sound_labels, "label studio": _sound_tasks, "recipes": _sound_recipe}
    return {kind: made[kind](root)} if kind in made else {}


def _sound_recipe(root: DataRoot) -> list[bytes]:
    """The recipe of two faces of the root's generator, or of one that it does not have. It is drawn
    once, so that what is imported does not count for the inputs."""
    trained = is_trained(root.nvae)
    faces = [Face(latents=Drawn(seed=3), values=[0.5, None, 0.1, 0.2, 1.0], temperature=0.7)] * 2
    recipe = Recipe(model=weights_version(root.nvae) if trained else "ab" * 32, faces=faces)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "faces.png")
        file.write_bytes(write_png(np.zeros((8, 8, 3), np.uint8), recipe))
        words = ["generate", "--from", file, "--out", Path(name, "again.png"), "--root", root.path]
        result = CliRunner().invoke(cli, [str(w) for w in words])
    if trained and result.exit_code:
        raise RuntimeError(f"a sound recipe is not drawn: {result.output}")
    return [recipe.model_dump_json(exclude_none=True).encode()]


def _import(box: Box, data: bytes, name: str, words: list[str]) -> None:
    file = box.given / name
    file.write_bytes(data)
    run(box, data, "import-labels", file, *words)


def _sound_labels(root: DataRoot) -> list[bytes]:
    store = LabelStore(root)
    found = {a: store.read(a) for a in ATTRIBUTES}
    images = {
        (s, stem): root.relative(p) for s, of in store.images.items() for stem, p in of.items()
    }
    made = [WRITERS[form](found, images).encode() for form in ("plain", "label-studio-csv")]
    return [root.hand_labels("eyes").read_bytes(), *made]


def _sound_tasks(root: DataRoot) -> list[bytes]:
    store = LabelStore(root)
    images = {
        (s, stem): root.relative(p) for s, of in store.images.items() for stem, p in of.items()
    }
    whole = WRITERS["label-studio"]({a: store.read(a) for a in ATTRIBUTES}, images).encode()
    records = [
        {"id": i, "image": f"/data/local-files/?d={path}", "mouth": 0.5, "annotation_id": i}
        | {"updated_at": "2026-11-29T10:00:00Z", "gender": sex}
        for i, ((sex, _), path) in enumerate(images.items())
    ]
    return [whole, json.dumps(records).encode()]


def _images(root: DataRoot, store: LabelStore) -> dict[tuple[str, str], str]:
    return {
        (sex, stem): root.relative(path)
        for sex, found in store.images.items()
        for stem, path in found.items()
    }


def _sound_pictures() -> list[bytes]:
    pixels = np.random.default_rng(1).integers(0, 255, (48, 40, 4), np.uint8)
    rgb, cmyk = Image.fromarray(pixels[..., :3]), Image.fromarray(pixels, "CMYK")
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = cv2.imencode(".png", pixels[..., :3].astype(np.uint16) * 257)[1].tobytes()
    deep_tiff = cv2.imencode(".tiff", pixels[..., :3].astype(np.uint16) * 257)[1].tobytes()
    made = [deep, deep_tiff]
    for image, form, more in (
        (rgb, "JPEG", {"exif": exif}),
        (rgb, "JPEG", {"progressive": True}),
        (cmyk, "JPEG", {}),
        (rgb, "PNG", {}),
        (rgb.convert("P"), "PNG", {"transparency": 1}),
        (rgb, "PNG", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        (rgb, "WEBP", {"exif": exif}),
        (rgb, "WEBP", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (cmyk, "TIFF", {}),
        (rgb, "GIF", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        (rgb, "BMP", {}),
        (rgb, "AVIF", {}),
    ):
        out = io.BytesIO()
        image.save(out, form, **more)
        made.append(out.getvalue())
    return made


@cache
def bombs() -> list[bytes]:
    """Small files that claim, or unpack to, much; and those of the largest size that is decoded."""
    side = 7071  # its square is just less than [images] max_pixels
    rows = {bits: zlib.compress(bytes(side * (1 + side * 3 * bits // 8)), 1) for bits in (8, 16)}
    whole = [_png([(b"IDAT", data)], side, side, bits) for bits, data in rows.items()]
    text = zlib.compress(bytes(200_000_000), 9)
    large = io.BytesIO()
    Image.new("CMYK", (side, side)).save(large, "JPEG")
    return [
        b"",
        b"\xff\xd8",
        bytes(1000),
        _png([(b"IDAT", zlib.compress(bytes(10_000_000)))], 60_000, 60_000),
        _png([(b"zTXt", b"Comment\0\0" + text), (b"IDAT", zlib.compress(bytes(8 * 25)))]),
        _png([(b"iCCP", b"profile\0\0" + text), (b"IDAT", zlib.compress(bytes(8 * 25)))]),
        *whole,
        large.getvalue(),
    ]


def _png(
    chunks: list[tuple[bytes, bytes]], width: int = 8, height: int = 8, bits: int = 8
) -> bytes:
    head = (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (head, *chunks, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _odd_table(box: Box, draw: Draw, name: str) -> tuple[pd.DataFrame, bytes]:
    """The table of a snapshot with an odd part, or its bytes if they were changed instead."""
    file = Files(box.root).path(find(box.root, name).manifest)
    if not draw(st.integers(0, 3)):
        return pd.DataFrame(), mutated(draw, [file.read_bytes()])
    return _odd(draw, pd.read_parquet(file)), b""


def _odd(draw: Draw, table: pd.DataFrame) -> pd.DataFrame:
    column, row = draw(st.sampled_from(list(table.columns))), draw(st.integers(0, len(table) - 1))
    if not draw(st.integers(0, 5)):
        return table.drop(columns=column)
    values: dict[str, list[Any]]
    values = {"path": PATHS, "sha256": ["", "..", "../../outside", "ab" * 32, "a" * 300]}
    values |= {"size": [-1, 2**62, 0], "offset": [-1, 2**62, 1]}
    values |= {"kind": ["", "state", "photograph", "?"], "shard": ["", "../x", "ab" * 32]}
    value = draw(st.sampled_from(values[column]))
    if value == "/outside":
        value = str(Path(tempfile.gettempdir()).resolve() / "outside")
    out = table.copy()
    out.loc[row, column] = value
    return out if draw(st.integers(0, 5)) else out.iloc[:0]


def _parquet(table: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    table.to_parquet(out, index=False)
    return out.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _kept(root: DataRoot, data: bytes) -> str:
    place = Files(root).path(_sha256(data))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return place.name


def _as_before(box: Box) -> None:
    """The root as it was before the snapshot that was changed."""
    shutil.rmtree(box.root.path)
    shutil.copytree(box.folder.with_name(f"{box.folder.name} before"), box.root.path)


@contextmanager
def boxed(kind: str, folder: Path, finished: Path | None, keep: Path | None) -> Iterator[Box]:
    """The box of a kind of input."""
    place = folder / kind
    (place / "given").mkdir(parents=True)
    (place / "outside").write_text("nobody may touch this", encoding="utf-8")
    if kind == "recipes" and finished:
        root = DataRoot(place / "root")
        shutil.copytree(finished, root.path)
    else:
        root = small_root(place / "root")
    if kind in ("snapshots", "stores"):
        take(root, "first")
        shutil.copytree(root.path, folder / f"{kind} before")
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"] = tempfile.tempdir = str(place / "given")
    try:
        yield Box(place, root, keep, _sound(kind, root))
    finally:
        os.environ["TMPDIR"], tempfile.tempdir = before[0] or "", before[1]
        if not before[0]:
            del os.environ["TMPDIR"]


def drill(
    kind: str, inputs: int, seed: int, finished: Path | None = None, keep: Path | None = None
) -> tuple[Outcome, list[str]]:
    """Try ``inputs`` inputs of a kind; what went wrong is in the outcome and, in words, beside
    it."""
    began, done = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        place = Path(folder).resolve()
        if kind == "requests":
            return requests.drill(inputs, seed, place)
        with boxed(kind, place, finished, keep) as box:

            def attempt(draw: Draw) -> None:
                nonlocal done
                KINDS[kind](box, draw)
                done += 1

            try_all(attempt, inputs, seed)
    figures = {"slowest": round(box.slowest, 2), "added_mib": box.most >> 20}
    figures["peak_mib"] = box.peak >> 20
    seconds = round(time.monotonic() - began, 1)
    return Outcome("mutations", kind, done, len(box.wrong), seconds, figures, seed), box.wrong


def main() -> None:
    """Try all kinds, print what went wrong, write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--root", type=Path)
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that went wrong")
    a, this_run = parser.parse_args(), begun("drills.mutations")
    outcomes = []
    whole = sum(SHARES[kind] for kind in a.only)
    for kind in a.only:
        n = max(1, round(a.inputs * SHARES[kind] / whole))
        outcome, wrong = drill(kind, n, a.seed, a.root, a.keep)
        outcomes.append(outcome)
        for line in wrong:
            print(f"  {kind}: {line}", flush=True)
    sys.exit(1 if report(outcomes, this_run) else 0)


if __name__ == "__main__":
    main()
