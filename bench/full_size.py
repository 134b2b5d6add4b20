"""The pipeline at its full size: 16,873 painted originals of 512², up to the input values.

    python bench/full_size.py [--root FOLDER] [--d1 10000 --female 3860 --male 3013 --size 512]
                              [--to ASSET …] [--repeats 5]

Materialises the assets of ``--to`` (by default all input values) and all assets upstream, in the
order of the graph. Each runs in a process of its own, so that its peak memory can be measured:
resident anonymous memory of the process and its children, sampled ten times a second. ``own`` is
the asset's time without start-up and observation. Then ``gaip3 ui`` serves the root. If Chromium is
installed, it opens the page of a set of resized pictures (timed until its last materialisation is
shown) and its contact sheet (timed from the click to the picture): medians of the repeats, each in
a new browser context; ``--repeats 0`` skips this. Prints a table; the last line is one JSON object.
A second call continues: fresh assets only take the time to see that they are fresh.
"""

import argparse
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import dagster as dg
import psutil
from common import command_line, data_root, print_result

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.definitions import build_defs
from gaip3_pipeline.layout import DEMO, DataRoot
from gaip3_pipeline.processes import gaip3
from gaip3_pipeline.settings import load
from gaip3_pipeline.setup.doctor import find_chromium

PAINT = """
import sys
from pathlib import Path
from gaip3_pipeline.faces.dataset import write_dataset
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import load
root = DataRoot(Path(sys.argv[1]))
write_dataset(root, load(root).faces)
"""


def origins(root: DataRoot, wanted: list[str]) -> list[str]:
    """The assets ``wanted`` and all assets upstream of them, in the order of the graph."""
    graph = build_defs(root).resolve_asset_graph()
    keys = {dg.AssetKey(name) for name in wanted}
    keys |= {origin for key in keys for origin in graph.get_ancestor_asset_keys(key)}
    made = keys & graph.materializable_asset_keys
    return [key.to_user_string() for key in graph.toposorted_asset_keys if key in made]


def timed(*words: str) -> tuple[float, str]:
    """Run ``gaip3`` with ``words``: its seconds and its output. Exits if it fails."""
    start, command = time.monotonic(), gaip3(*words)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}")
    return time.monotonic() - start, done.stdout


def measured(command: list[str]) -> tuple[float, float, str]:
    """Run ``command``: its wall seconds, the peak anonymous memory in MiB of its process tree, and
    its output. Exits if it fails."""
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
            lines = (line for line in text.splitlines() if line.startswith("Anonymous:"))
            total += sum(int(line.split()[1]) for line in lines)
    except (psutil.Error, OSError):
        pass
    return total / 1024


def own_seconds(output: str) -> dict[str, float]:
    """Each asset's own duration as the refresh prints it."""
    found = re.findall(r"^ +([\d.]+) s  (\w+)$", output, re.MULTILINE)
    return {asset: float(seconds) for seconds, asset in found}


def sized(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    """``parser`` with the root, by default ``demo/{name}`` of the repository, and the numbers of
    originals to paint."""
    parser.add_argument("--root", type=data_root, default=DataRoot(DEMO / name))
    for kind, count in (("d1", 10_000), ("female", 3_860), ("male", 3_013)):
        parser.add_argument(f"--{kind}", type=int, default=count)
    return parser


def settle(root: DataRoot, settings: str) -> None:
    """Write the root's settings unless they exist, so that a second call uses the same ones."""
    root.path.mkdir(parents=True, exist_ok=True)
    if not root.settings_file.exists():
        root.settings_file.write_text(settings, encoding="utf-8")


def size_mib(files: Iterable[Path]) -> float:
    """Total size of the existing ``files``, in MiB."""
    return round(sum(f.stat().st_size for f in files if f.is_file()) / 2**20, 1)


def opening_times(root: DataRoot, asset: str, chromium: str, repeats: int) -> dict[str, float]:
    """Seconds from the request of the page of ``asset`` to its details, and from the click to its
    contact sheet."""
    from playwright.sync_api import sync_playwright

    ports = ["--port", "23800", "--mlflow-port", "23900"]
    command = gaip3("ui", "--root", str(root.path), *ports)
    ui = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    shown_picture = """[...document.images].some(
        i => i.src.startsWith('data:image/jpeg') && i.naturalWidth > 100)"""
    try:
        link = ""
        for line in ui.stdout or []:
            link = link or "".join(re.findall(r"(http://\S+)/asset-groups", line))
            if "Ctrl-C" in line:
                break
        pages, sheets = [], []
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"]
            )
            for _ in range(repeats + 1):  # the first is the warm-up
                context = browser.new_context(viewport={"width": 1600, "height": 1000})
                context.set_default_timeout(60_000)
                page = context.new_page()
                start = time.perf_counter()
                page.goto(f"{link}/assets/{asset}")
                shown = page.get_by_text("[Show Markdown]").first
                shown.wait_for()
                pages.append(time.perf_counter() - start)
                start = time.perf_counter()
                shown.click()
                page.wait_for_function(shown_picture)
                sheets.append(time.perf_counter() - start)
                context.close()
            browser.close()
    finally:
        ui.send_signal(signal.SIGINT)
        ui.wait(timeout=60)
    medians = (round(statistics.median(seconds[1:]), 2) for seconds in (pages, sheets))
    return dict(zip(("asset_page_s", "contact_sheet_s"), medians, strict=True))


def main() -> None:
    """Paint, refresh asset by asset, report."""
    parser = sized(command_line(__doc__), "full-size")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--to", nargs="+", default=[f"input_values_{a}" for a in ATTRIBUTES])
    parser.add_argument("--repeats", type=int, default=5, help="of opening the page")
    a = parser.parse_args()
    sizes = f"d1 = {a.d1}\nfemale = {a.female}\nmale = {a.male}\nsize = {a.size}\n"
    settle(a.root, f'preset = "demo"\n[faces]\n{sizes}')
    rows: list[dict[str, str | float]] = []
    print(f"{'asset':28}{'seconds':>10}{'own':>10}{'peak MiB':>10}")

    def add(name: str, seconds: float, own: float, peak: float) -> None:
        figures = {"seconds": round(seconds, 1), "own_seconds": round(own, 1)}
        rows.append({"asset": name, **figures, "peak_mib": round(peak)})
        print(f"{name:28}{seconds:10.1f}{own:10.1f}{peak:10.0f}", flush=True)

    seconds, peak, _ = measured([sys.executable, "-c", PAINT, str(a.root.path)])
    add("painting", seconds, seconds, peak)
    refresh = gaip3("refresh", "--root", str(a.root.path))
    targets = origins(a.root, a.to)
    for asset in targets:
        seconds, peak, output = measured([*refresh, "--select", asset])
        add(asset, seconds, own_seconds(output).get(asset, 0.0), peak)
    seconds, _, output = measured([*refresh, "--dry-run"])
    print(f"{'dry run':28}{seconds:10.1f}")
    further = {
        "dagster_mib": size_mib((a.root.state / "dagster").rglob("*")),
        "mlflow_mib": size_mib([a.root.mlflow_db]),
    }
    chromium = find_chromium()
    if chromium and a.repeats:
        resized = next(name for name in targets if name.startswith("resized_"))
        further |= opening_times(a.root, resized, chromium, a.repeats)
    for name, value in further.items():
        print(f"{name:28}{value:10.2f}")
    faces = load(a.root).faces
    images = 2 * (faces.d1 + faces.female + faces.male)
    print_result({"rows": rows, "images": images, "dry_run_seconds": round(seconds, 1), **further})


if __name__ == "__main__":
    main()
