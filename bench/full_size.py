"""The pipeline at its full size: 16,873 painted originals of 512², everything up to the input values, on this machine.

    python bench/full_size.py [--root FOLDER] [--d1 10000 --female 3860 --male 3013 --size 512]

Each asset runs in a process of its own, so that its peak memory is its own: resident anonymous memory, sampled ten times a second
over the process and its children. ``own`` is the asset's time without start-up and observation. Then ``gaip3 ui`` serves the root, and
Chromium, where there is one, opens the page of an asset (to its last materialisation) and its contact sheet (from the click to the
picture): medians of five, each in a fresh browser context. Prints a table; the last line is one JSON object. A second call goes on: what
is fresh takes only the time to find that out.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from gaip3_pipeline.attributes import ATTRIBUTES  # noqa: E402
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot  # noqa: E402
from gaip3_pipeline.setup.doctor import find_chromium  # noqa: E402

TARGETS = [
    *(f"{kind}_{s.id}" for s in IMAGE_SETS for kind in ("resized", "augmented")),
    *(f"labels_{a}" for a in ATTRIBUTES),
    "gender_model",
    "gender_probabilities",
    "final_dataset",
    "feature_extractor",
    "final_features",
    *(f"{name}_{a}" for a in ATTRIBUTES for name in ("input_model", "input_values")),
]


def measured(command: list[str]) -> tuple[float, float, str]:
    """Wall seconds, peak anonymous memory in MiB over the process tree, and what it printed. Raises on failure."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peak = 0.0

    def sample() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, anonymous_mib(process.pid))
            time.sleep(0.1)

    watcher = threading.Thread(target=sample)
    watcher.start()
    output = process.communicate()[0]
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{output[-2000:]}")
    return time.monotonic() - start, peak, output


def anonymous_mib(pid: int) -> float:
    """Anonymous resident memory of a process and its children, in MiB."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Anonymous:"))
    except (psutil.Error, OSError):
        pass
    return total / 1024


def own_seconds(output: str) -> dict[str, float]:
    """Each asset's own duration as the refresh prints it."""
    return {asset: float(seconds) for seconds, asset in re.findall(r"^ +([\d.]+) s  (\w+)$", output, re.MULTILINE)}


def sized(parser: argparse.ArgumentParser, folder: str) -> argparse.ArgumentParser:
    """``parser`` with the root, ``demo/{folder}`` of the repository by default, and how many originals are painted into it."""
    parser.add_argument("--root", type=Path, default=REPOSITORY / "demo" / folder)
    for name, value in (("d1", 10_000), ("female", 3_860), ("male", 3_013)):
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser


def folder_mib(path: Path) -> float:
    """Size of the files below ``path`` in MiB."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 2**20


def opening_times(root: DataRoot, chromium: str, repeats: int = 5) -> dict[str, float]:
    """Seconds from asking for an asset's page to its details, and from the click to its contact sheet."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "gaip3_pipeline.cli", "ui", "--root", str(root.path), "--port", "23800", "--mlflow-port", "23900"]
    ui = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        link = ""
        for line in ui.stdout or []:
            link = link or "".join(re.findall(r"(http://\S+)/asset-groups", line))
            if "Ctrl-C" in line:
                break
        pages, sheets = [], []
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"])
            for _ in range(repeats + 1):  # the first is the warm-up
                context = browser.new_context(viewport={"width": 1600, "height": 1000})
                context.set_default_timeout(60_000)
                page = context.new_page()
                start = time.perf_counter()
                page.goto(f"{link}/assets/resized_d1")
                shown = page.get_by_text("[Show Markdown]").first
                shown.wait_for()
                pages.append(time.perf_counter() - start)
                start = time.perf_counter()
                shown.click()
                page.wait_for_function("[...document.images].some(i => i.src.startsWith('data:image/jpeg') && i.naturalWidth > 100)")
                sheets.append(time.perf_counter() - start)
                context.close()
            browser.close()
    finally:
        ui.send_signal(signal.SIGINT)
        ui.wait(timeout=60)
    return {"asset_page_s": round(statistics.median(pages[1:]), 2), "contact_sheet_s": round(statistics.median(sheets[1:]), 2)}


def main() -> None:
    """Paint, refresh asset by asset, report."""
    parser = sized(argparse.ArgumentParser(description=__doc__.splitlines()[0]), "full-size")
    parser.add_argument("--size", type=int, default=512)
    a = parser.parse_args()
    root = DataRoot(a.root.resolve())
    root.path.mkdir(parents=True, exist_ok=True)
    faces = f"[faces]\nd1 = {a.d1}\nfemale = {a.female}\nmale = {a.male}\nsize = {a.size}\n"
    if not root.settings_file.exists():
        root.settings_file.write_text(f'preset = "demo"\n{faces}', encoding="utf-8")
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    paint = (
        "import sys; from pathlib import Path; from gaip3_pipeline.layout import DataRoot; from gaip3_pipeline.settings import load;"
        "from gaip3_pipeline.faces.dataset import write_dataset; r = DataRoot(Path(sys.argv[1])); write_dataset(r, load(r).faces)"
    )
    rows = []
    seconds, peak, _ = measured([sys.executable, "-c", paint, str(root.path)])
    rows.append({"asset": "painting", "seconds": round(seconds, 1), "own_seconds": round(seconds, 1), "peak_mib": round(peak)})
    print(f"{'asset':28}{'seconds':>10}{'own':>10}{'peak MiB':>10}")
    print(f"{'painting':28}{seconds:10.1f}{seconds:10.1f}{peak:10.0f}", flush=True)
    for asset in TARGETS:
        command = [sys.executable, "-m", "gaip3_pipeline.cli", "refresh", "--root", str(root.path), "--select", asset]
        seconds, peak, output = measured(command)
        own = own_seconds(output).get(asset, 0.0)
        rows.append({"asset": asset, "seconds": round(seconds, 1), "own_seconds": own, "peak_mib": round(peak)})
        print(f"{asset:28}{seconds:10.1f}{own:10.1f}{peak:10.0f}", flush=True)
    seconds, _, output = measured([sys.executable, "-m", "gaip3_pipeline.cli", "refresh", "--root", str(root.path), "--dry-run"])
    stores = {"dagster_mib": round(folder_mib(root.state / "dagster"), 1), "mlflow_mib": round(root.mlflow_db.stat().st_size / 2**20, 1)}
    print(f"{'dry run, nothing stale':28}{seconds:10.1f}")
    chromium = find_chromium()
    opened = opening_times(root, chromium) if chromium else {}
    for name, value in {**stores, **opened}.items():
        print(f"{name:28}{value:10.2f}")
    print(json.dumps({"rows": rows, "images": 2 * (a.d1 + a.female + a.male), "dry_run_seconds": round(seconds, 1), **stores, **opened}))


if __name__ == "__main__":
    main()
