#!/usr/bin/env python3
"""Hold a data root that the pipeline has filled against its contracts (docs/data-contracts.md).

    python -m gaip3_pipeline_tests.contract DATA_ROOT [--threshold 0.9999] [--size 104x128]

Reads files only (numpy, pandas, pyarrow, Pillow, h5py). Prints a line per rule; exit code 1 if any is broken.
A rule that cannot be examined counts as broken. Written apart from the project, so that a mistake is not made twice.
"""

import argparse
import io
import os
import pathlib
import sys
import unicodedata
import zlib

import numpy as np
import pandas as pd
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 1 << 28  # metadata does not matter

SETS = {"10k-images": "thispersondoesnotexist.10k", "female": "ThisPersonDoesNotExist/Female", "male": "ThisPersonDoesNotExist/Male"}
ATTRS = ["eyes", "mouth", "hair_color", "background", "head"]
RATIOS = [0.84, 0.864, 0.888, 0.912, 0.936, 0.96, 1.04, 1.064, 1.088, 1.112, 1.136, 1.16]
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"}
SYSTEM = {"@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler", "system volume information", "__macosx", "lost+found"}
CROP = 0.09375
broken = 0


def rule(name, examine):
    """Run one rule (a function returning (holds, detail)); an exception is a broken rule."""
    global broken
    try:
        ok, detail = examine()
    except Exception as e:  # any failure to examine is a verdict here
        ok, detail = False, f"{type(e).__name__}: {e}"
    broken += not ok
    print(f"{'ok    ' if ok else 'BROKEN'} {name}: {detail}")


def pictures(folder):
    """Paths of the pictures below a folder, in plain string order of their names; links to folders are followed once,
    hidden and system folders are not entered, and a picture reached again by a link counts once."""
    found, seen = {}, {os.path.realpath(folder)}
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [f for f in sorted(folders) if f[0] != "." and f.lower() not in SYSTEM]
        for f in list(folders):
            real = os.path.realpath(os.path.join(here, f))
            if real in seen or os.path.realpath(folder).startswith(real + "/"):
                folders.remove(f)
            seen.add(real)
        for p in (pathlib.Path(here, f) for f in files if f[0] != "."):
            if p.suffix.lower() in SUFFIXES and p.is_file():
                real = os.path.realpath(p)
                if real not in found or found[real].is_symlink():
                    found[real] = p
    return sorted(found.values(), key=lambda p: p.name)


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"), dtype=np.float64)


def in_srgb(im):
    """The picture as sRGB: by its ICC profile where it has one that can be read."""
    profile = im.info.get("icc_profile")
    if profile and im.mode in ("RGB", "L", "CMYK"):
        try:
            return ImageCms.profileToProfile(im, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB")
        except ImageCms.PyCMSError:
            pass
    return im.convert("RGB")


def nfc(text):
    return unicodedata.normalize("NFC", str(text))


def sample(items, n=64):
    return items[:: max(1, len(items) // n)]


def brightness(path):
    return RATIOS[zlib.crc32(path.stem.encode()) % len(RATIOS)]


class Root:
    """The files of one data root, gathered once."""

    def __init__(self, root, size, threshold):
        self.root, self.size, self.threshold = root, size, threshold
        self.original = {n: pictures(root / "original" / o) for n, o in SETS.items()}
        self.resized = {n: pictures(root / "resized" / n) for n in SETS}
        self.augmented = {n: pictures(root / "augmented" / n) for n in SETS}
        made = tuple(f"{k}_{n}_" for k in ("resized", "augmented") for n in SETS)  # other entries are not the pipeline's
        self.final = sorted(p for p in (root / "final").glob("*.jpg") if p.name.startswith(made))

    def processed(self):
        return sorted(
            f"{k}/{n}/{p.name}" for k, of in (("resized", self.resized), ("augmented", self.augmented)) for n in SETS for p in of[n]
        )

    # images
    def complete(self, n):
        src, res = {nfc(p.stem) for p in self.original[n]}, {nfc(p.stem) for p in self.resized[n]}
        missing, orphans = src - res, res - src
        listed = set()
        for f in (self.root / "manifests").glob("*.parquet"):
            m = pd.read_parquet(f)
            if {"path", "status", "reason"} <= set(m.columns):
                listed |= {nfc(pathlib.PurePosixPath(p).stem) for p in m.path[m.reason.fillna("").astype(str) != ""]}
        return (
            bool(res) and not orphans and missing <= listed,
            f"{len(src)} originals, {len(res)} resized, {len(orphans)} orphans, {len(missing)} missing of which {len(missing & listed)} explained in a manifest",
        )

    def same_names(self, n):
        a, b = [p.name for p in self.resized[n]], [p.name for p in self.augmented[n]]
        return a == b and all(x.endswith(".jpg") for x in a), f"{len(b)} augmented"

    def one_size(self, n):
        sizes = {Image.open(p).size for p in self.resized[n] + self.augmented[n]}
        return sizes == {self.size}, sizes

    def cropped(self, n):
        by_stem, worst = {nfc(p.stem): p for p in self.original[n]}, 0.0
        for p in sample(self.resized[n]):
            im = in_srgb(ImageOps.exif_transpose(Image.open(by_stem[nfc(p.stem)])))
            c = round(im.width * CROP)
            want = np.asarray(im.crop((c, 0, im.width - c, im.height)).resize(self.size, Image.BOX), dtype=np.float64)
            worst = max(worst, float(np.abs(want - pixels(p)).mean()))
        return worst < 5, f"worst mean difference from crop and area resize {worst:.2f} grey levels"

    def brightened(self, n):
        by_name, worst = {p.name: p for p in self.augmented[n]}, 0.0
        for p in sample(self.resized[n]):
            x, y, r = pixels(p), pixels(by_name[p.name]), brightness(p)
            want = x * r if r < 1 else x * (2 - r) + 255 * (r - 1)
            worst = max(worst, float(np.abs(want - y).mean()))
        return worst < 2, f"worst mean difference {worst:.2f} grey levels"

    # tables
    def gender(self):
        g = pd.read_csv(self.root / "predictions" / "all_output_decide_train_data.csv")
        assert list(g.columns) == ["Unnamed: 0", "image_path", "prob_male", "prob_female"], list(g.columns)
        assert (g["Unnamed: 0"] == 0).all(), "the first column is not 0 throughout"
        assert np.allclose(g.prob_male + g.prob_female, 1, atol=1e-4) and g.prob_female.between(0, 1).all(), "probabilities"
        return g.assign(place=g.image_path.str.split("/").str[-3:].str.join("/"))

    def gender_rows(self):
        g = self.gender()
        return (
            sorted(g.place) == self.processed() and g.prob_female.std() > 0.01,
            f"{len(g)} rows for {len(self.processed())} pictures, sd {g.prob_female.std():.3f}",
        )

    def final_is_rule(self):
        g = self.gender()
        keep = g.place[(g.prob_female >= self.threshold) & (g.place.str.split("/").str[1] != "male")]
        want = {f"{k}_{d}_{pathlib.PurePosixPath(n).stem}.jpg": f"{k}/{d}/{n}" for k, d, n in (t.split("/") for t in keep)}
        have = {p.name: p for p in self.final}
        other = [n for n in want if n in have and have[n].read_bytes() != (self.root / want[n]).read_bytes()]
        links = sum(p.stat().st_nlink > 1 for p in self.final)
        return bool(want) and set(want) == set(
            have
        ) and not other, f"rule {len(want)}, final/ {len(have)}, other bytes {len(other)}, hard links {links}"

    def labels(self, attr):
        path = self.root / "labels" / f"train_output_{attr}.csv"
        head = path.read_text(encoding="utf-8-sig").partition("\n")[0]
        t = pd.read_csv(path, encoding="utf-8-sig", sep=max(",;\t", key=head.count), dtype=str, keep_default_na=False)
        t = t[(t != "").any(axis=1)].assign(value=lambda t: t.value.str.replace(",", ".").astype(float))
        stems = {s: {nfc(p.stem) for p in self.original[s]} for s in ("female", "male")}
        key = list(zip(t.gender, t.path.str.replace("\\", "/").map(lambda p: nfc(pathlib.PurePosixPath(p).stem))))
        lost = [k for k in key if k[1] not in stems.get(k[0], ())]
        ok = (
            list(t.columns[:4]) == ["gender", "img_id", "path", "value"]
            and len(t)
            and t.value.between(0, 1).all()
            and not lost
            and len(set(key)) == len(key)
        )
        return bool(ok), f"{len(t)} rows, {len(lost)} without a picture, {len(key) - len(set(key))} twice"

    def values(self, attr):
        v = pd.read_csv(self.root / "predictions" / f"all_output_{attr}.csv")
        ok = (
            list(v.columns) == ["image_path", attr]
            and sorted(v.image_path.str.split("/").str[-1]) == [p.name for p in self.final]
            and v[attr].between(0, 1).all()
        )
        return bool(ok), f"{len(v)} rows, sd {v[attr].std():.3f}"

    def varied(self):
        sd = {a: round(float(pd.read_csv(self.root / "predictions" / f"all_output_{a}.csv")[a].std()), 3) for a in ATTRS}
        return sum(s > 0.01 for s in sd.values()) >= 4, sd

    def uncertainty(self, attr):
        u = pd.read_csv(self.root / "predictions" / f"uncertainty_{attr}.csv")
        ok = (
            list(u.columns) == ["image_path", "uncertainty"]
            and sorted(u.image_path.str.split("/").str[-1]) == [p.name for p in self.final]
            and u.uncertainty.between(0, 1, inclusive="neither").all()
        )
        return bool(ok), f"{len(u)} rows, mean {u.uncertainty.mean():.3f}"

    def out_of_fold(self, attr):
        t = pd.read_csv(self.root / "models" / f"input_{attr}" / "out_of_fold.csv", dtype={"stem": str}, keep_default_na=False)
        labels = pd.read_csv(self.root / "labels" / "checked" / f"{attr}.csv")
        same = sorted(zip(t.gender, t.stem)) == sorted((g, pathlib.PurePosixPath(p).stem) for g, p in zip(labels.gender, labels.path))
        columns = ["key", "set", "stem", "gender", "bucket", "split", "value", "predicted", "uncertainty"]
        return list(t.columns) == columns and same and t.predicted.between(0, 1).all() and (t.uncertainty > 0).all(), f"{len(t)} rows"

    def folders(self):
        t = pd.read_csv(self.root / "review" / "folders.csv")
        score = self.gender().set_index("place").prob_female.reindex(t.path)
        ok = (
            list(t.columns) == ["path", "folder", "prob_female", "suspicion"]
            and np.allclose(score, t.prob_female)
            and ((t.prob_female < 0.5) == (t.folder == "female")).all()
            and t.suspicion.between(0.5, 1, inclusive="right").all()
            and t.suspicion.is_monotonic_decreasing
        )
        return bool(ok), f"{len(t)} suspected"

    # models, logs, pictures
    def weights(self, model):
        import h5py

        files, arrays = sorted((self.root / "models" / model).rglob("*.weights.h5")), []
        assert files, "no .weights.h5"
        for f in files:
            with h5py.File(f) as h:
                h.visititems(lambda _, d: arrays.append(np.asarray(d)) if isinstance(d, h5py.Dataset) else None)
        numbers = [a for a in arrays if np.issubdtype(a.dtype, np.floating)]
        return bool(numbers) and all(np.isfinite(a).all() for a in numbers), f"{len(files)} files, {sum(a.size for a in numbers):,} numbers"

    def log(self, name):
        n = len((self.root / "logs" / name).read_text(encoding="utf-8"))
        return n > 200, f"{n} characters"

    def samples(self):
        t = pd.read_csv(self.root / "samples" / "samples.csv")
        need = {"image_path", *ATTRS, "seed", "temperature", "guidance"}
        shown = {p.name: pixels(p) for p in pictures(self.root / "samples") if p.name in set(t.image_path.str.split("/").str[-1])}
        flat = sum(x.std() < 4 for x in shown.values())
        return need <= set(t.columns) and len(shown) == len(
            t
        ) > 0 and flat == 0, f"{len(t)} rows, {len(shown)} pictures, {flat} flat; missing columns {sorted(need - set(t.columns))}"

    def retouched(self):
        t = pd.read_csv(self.root / "samples" / "samples.csv")
        names, moved = set(t.image_path.str.split("/").str[-1]), []
        pairs = [p for p in pictures(self.root / "retouched") if p.name in names]
        at = {p.name: p for p in pictures(self.root / "samples")}
        for p in sample(pairs):
            moved.append(float(np.abs(pixels(p) - pixels(at[p.name])).mean()))
        return len(pairs) > 0 and 0 < np.mean(
            moved
        ) < 60, f"{len(pairs)} pictures with their sample's name, mean change {np.mean(moved or [0]):.2f} grey levels"


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("root", type=pathlib.Path)
    ap.add_argument("--threshold", type=float, default=0.9999)
    ap.add_argument("--size", default="104x128", help="width x height of processed pictures")
    a = ap.parse_args()
    r = Root(a.root, tuple(map(int, a.size.split("x"))), a.threshold)
    for n in SETS:
        rule(f"resized/{n} is original/{SETS[n]}", lambda: r.complete(n))
        rule(f"resized/{n} is cropped and area-resized", lambda: r.cropped(n))
        rule(f"augmented/{n} has the same names, all .jpg", lambda: r.same_names(n))
        rule(f"{n}: every picture is {a.size}", lambda: r.one_size(n))
        rule(f"augmented/{n} has the brightness of its name", lambda: r.brightened(n))
    rule("gender CSV", r.gender_rows)
    rule("final/ is the rule's set: names and bytes", r.final_is_rule)
    for attr in ATTRS:
        rule(f"labels of {attr}", lambda: r.labels(attr))
        rule(f"values of {attr}", lambda: r.values(attr))
        rule(f"uncertainty of {attr}", lambda: r.uncertainty(attr))
        rule(f"out-of-fold predictions of {attr}", lambda: r.out_of_fold(attr))
    rule("values vary (four of five)", r.varied)
    rule("suspected wrong folders", r.folders)
    for m in ["decide_train_data", *(f"input_{t}" for t in ATTRS), "nvae", "critic"]:
        rule(f"weights in models/{m}", lambda: r.weights(m))
    for name in ("train_data_decide_model", "input_decide_model", "nvae", "critic"):
        rule(f"logs/trainlog_{name}.md", lambda: r.log(f"trainlog_{name}.md"))
    rule("samples", r.samples)
    rule("retouched", r.retouched)
    print(f"{broken} broken")
    return broken > 0


if __name__ == "__main__":
    sys.exit(main())
