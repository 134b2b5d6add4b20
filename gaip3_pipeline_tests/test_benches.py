"""Every bench runs at a tiny size and prints its figures in its last line."""

import gzip
import json
import math
import re
import runpy
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gaip3_pipeline import settings
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import IMAGE_SETS, REPOSITORY, DataRoot
from gaip3_pipeline.settings import Nvae, load
from gaip3_pipeline_tests.refreshing import FEW_CELLS, with_few_cells

BENCH = REPOSITORY / "bench"
FEW = FEW_CELLS | {"batch_size": 64}
Bench = Callable[..., dict[str, Any]]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    """A function that runs a bench in this process, as ``python bench/NAME.py WORDS`` does, and
    returns the JSON of its last line."""
    monkeypatch.syspath_prepend(str(BENCH))

    def run(name: str, *words: object) -> dict[str, Any]:
        script = str(BENCH / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        runpy.run_path(script, run_name="__main__")
        said = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert isinstance(said, dict)
        return said

    return run


def numbers(said: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a bench's result, with its path in the JSON."""
    if isinstance(said, dict | list):
        for key, value in said.items() if isinstance(said, dict) else enumerate(said):
            yield from numbers(value, f"{name}.{key}")
    elif isinstance(said, int | float):
        yield name, said


def not_finite(said: Any) -> list[str]:
    """The paths of numbers that are not finite."""
    return [name for name, number in numbers(said) if not math.isfinite(number)]


def test_every_bench_has_a_test() -> None:
    benches = {path.stem for path in BENCH.glob("*.py")} - {"common"}
    assert benches == set(re.findall(r'bench\(\s*"(\w+)"', Path(__file__).read_text()))


@pytest.mark.cluster
def test_cluster(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs the extra cluster")
    monkeypatch.setenv("GAIP3_TEST_NETWORK", "50")
    said = bench("cluster", "--pictures", 64, "--size", 128, "--chunk", 32, "--nodes", "2")

    assert min(said["work_ms_1"], said["work_ms_2"]) > 0
    assert min(said["per_s_1"], said["per_s_2"], said["driver_rows_2"], said["driver_parts_2"]) > 0
    assert min(said["share_1"], said["share_2"]) > 0
    assert not_finite(said) == []


def test_cells(bench: Bench, root_copy: DataRoot, tmp_path: Path) -> None:
    with root_copy.settings_file.open("a") as file:
        print("[nvae]", *(f"{k} = {v}" for k, v in FEW.items()), sep="\n", file=file)
    out = tmp_path / "out"
    one_epoch = ("--kinds", "dense", "--minutes", 1e-9)  # the paper's cells compile for a minute
    said = bench("cells", root_copy.path, *one_epoch, "--out", out)

    assert said.keys() == {"bits_per_dim", "seconds", "samples", "curves"}
    assert [set(said[k]) for k in ("seconds", "samples", "curves")] == [{"dense"}] * 3
    assert not not_finite(said)
    assert {p.name for p in out.iterdir()} == {"dense.jpg", "curves.jpg"}


def test_the_kinds_of_cells_have_equal_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    of_kind = runpy.run_path(str(BENCH / "cells.py"))["of_kind"]
    dense, paper, paper_stem = (of_kind(k, Nvae()) for k in ("dense", "paper", "paper_stem"))

    assert dense.latents == paper.latents == paper_stem.latents[:-1]
    assert paper_stem.latents[-1] == 0
    assert (dense.cell, paper.cell, paper_stem.cell) == ("dense", "paper", "paper")
    assert paper.stem == 2 * paper_stem.stem
    scales = {len(getattr(paper_stem, k)) for k in ("channels", "latents", "cells", "kl_weights")}
    assert scales == {len(Nvae().channels) + 1}


def test_control(bench: Bench, finished_root: DataRoot, tmp_path: Path) -> None:
    sizes = ("--painted", 20, "--epochs", 1, "--guidance", 1, "--faces", 2)
    said = bench("control", finished_root.path, tmp_path, *sizes)

    assert said.keys() == {"evaluators_r2", "rows"}
    assert set(said["evaluators_r2"]) == set(ATTRIBUTES)
    [row] = said["rows"]
    assert {"guidance", "temperature", "leakage", "spearman_head", "fd_random_samples"} <= set(row)
    assert not not_finite(said)
    assert (tmp_path / "strips_guidance_1.jpg").exists()
    assert (tmp_path / "control_guidance_1.jpg").exists()


def test_demo(bench: Bench, root_copy: DataRoot) -> None:
    said = bench("demo", "--root", root_copy.path)

    assert said.keys() == {"seconds", "cpu_seconds", "second_seconds", "assets"}
    assert min(said["seconds"], said["cpu_seconds"], said["second_seconds"]) > 0
    assert said["assets"]["nvae_weights"] > said["assets"]["report"] > 0


def test_detail(bench: Bench, finished_root: DataRoot, tmp_path: Path) -> None:
    start, sheets = tmp_path / "start.npz", tmp_path / "sheets"
    sizes = ("--steps", 1, "--every", 1, "--set", "batch_size=2")
    said = bench("detail", finished_root.path, *sizes, "--save-start", start, "--out", sheets)

    counts = {"root", "n", "held_out"}
    assert said.keys() == counts | {"means", "pictures_per_second", "peak_mb", "rows"}
    assert [row["steps"] for row in said["rows"]] == [1]
    assert not not_finite(said)
    assert start.exists()
    assert [p.name for p in sheets.iterdir()] == ["000001.jpg"]


def test_full_size(bench: Bench, tmp_path: Path) -> None:
    few = ("--d1", 2, "--female", 1, "--male", 1, "--size", 128)
    said = bench("full_size", "--root", tmp_path, *few, "--to", "resized_d1", "--repeats", 0)

    assert said.keys() == {"rows", "images", "dry_run_seconds", "dagster_mib", "mlflow_mib"}
    assert [row["asset"] for row in said["rows"]] == ["painting", "resized_d1"]
    assert all(row["peak_mib"] > 0 for row in said["rows"])
    assert said["images"] == 8
    assert not not_finite(said)


def test_full_size_goes_up_to_the_input_values(
    monkeypatch: pytest.MonkeyPatch, finished_root: DataRoot
) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    origins = runpy.run_path(str(BENCH / "full_size.py"))["origins"]
    assets = origins(finished_root, [f"input_values_{a}" for a in ATTRIBUTES])

    order = [assets.index(name) for name in ("resized_d1", "feature_extractor", "final_dataset")]
    assert order == sorted(order)
    assert {f"input_model_{a}" for a in ATTRIBUTES} | {"near_duplicates"} <= set(assets)
    assert assets[-1].startswith("input_values_")
    assert not {"nvae_weights", "label_review", "image_quality"} & set(assets)


def test_damage(bench: Bench, tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((256, 256)).save(tmp_path / "photograph.jpg")
    said = bench("damage", tmp_path, "--count", 1)

    assert {"baseline", "progressive", "PNG", "WebP", "AVIF"} <= said.keys()
    assert all(of.keys() == {"random", "zeros"} for of in said.values())
    assert all(said["PNG"][kind]["found"] == 1 for kind in ("random", "zeros"))


def test_image_prep(bench: Bench, tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((256, 256)).save(tmp_path / "photograph.jpg")
    said = bench("image_prep", tmp_path, "--repeats", 1)

    assert said.keys() == {"progressive", "baseline"}
    rates = {"ours", "ours_to_jpeg", "pillow_full", "opencv_full", "decoder_limit"}
    assert set(said["baseline"]) == rates | {"mean_abs_diff", "two_process_speedup"}
    assert not not_finite(said)


def test_input_models(bench: Bench, finished_root: DataRoot) -> None:
    sizes = ("--networks", 1, "--folds", 2, "--attribute", "eyes")
    said = bench("input_models", finished_root.path, *sizes)

    assert said.keys() == {"folds", "eyes"}
    assert set(said["eyes"]) == {"process", "network", "mean of both"}
    figures = {"n", "r2", "r2_low", "r2_high", "mae", "spearman", "seconds", "exact", "taught"}
    assert set(said["eyes"]["process"]) == figures
    assert not not_finite(said)


def test_label_review(bench: Bench, finished_root: DataRoot, tmp_path: Path) -> None:
    labels = pd.read_csv(finished_root.checked_labels("mouth"))
    second = labels.assign(name=labels.path, mouth=labels.value.round())
    second.to_csv(tmp_path / "second.csv", index=False)
    sizes = ("--seeds", 1, "--networks", 1, "--attribute", "mouth")
    said = bench("label_review", finished_root.path, *sizes, "--second", tmp_path / "second.csv")

    assert said.keys() == {"share", "seeds", "network_epochs", "mouth"}
    ways = {"review", "residual", "network", "both", "review, seed 0"}
    others = {"n", "r2", "fit_s", "expected_wrong", "second labelling", "network_s"}
    assert set(said["mouth"]) == ways | others
    assert said["mouth"]["second labelling"]["n"] == said["mouth"]["n"]
    assert not not_finite(said)


def test_labelling(bench: Bench, finished_root: DataRoot, tmp_path: Path) -> None:
    sizes = ("--seeds", 2, "--folds", 2, "--counts", 10, 20, "--chosen", 20, "--networks", 1)
    words = ("--attribute", "mouth", "--out", tmp_path / "curves.jpg")
    said = bench("labelling", finished_root.path, *sizes, *words)

    assert said.keys() == {"seeds", "mouth"}
    of_ways = {f"{k}_{way}" for k in ("r2", "error", "rare") for way in ("random", "chosen")}
    assert set(said["mouth"]) == of_ways | {"n", "labels", "equivalent", "interval", "networks"}
    assert said["mouth"]["labels"] == [10, 20]
    assert not not_finite(said)
    assert (tmp_path / "curves.jpg").exists()


def test_labelling_refuses_too_few_labels(bench: Bench, finished_root: DataRoot) -> None:
    sizes = ("--seeds", 1, "--folds", 2, "--counts", 10, 200, "--attribute", "mouth")
    with pytest.raises(SystemExit, match="labels of mouth are too few for --chosen 200"):
        bench("labelling", finished_root.path, *sizes)


def test_nvae_mnist(bench: Bench, tmp_path: Path) -> None:
    data, folder = tmp_path / "mnist", tmp_path / "trained"
    data.mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    for name in ("train", "t10k"):
        file = data / f"{name}-images-idx3-ubyte.gz"
        file.write_bytes(gzip.compress(struct.pack(">4I", 2051, *pictures.shape) + bytes(pictures)))
    sizes = ("--size", "tiny", "--epochs", 1, "--k", 2, "--images", 2)
    said = bench("nvae_mnist", folder, "--data", data, *sizes)

    bounds = {"nll_nats", "elbo_nats", "kl", "k", "n"}
    training = {"minutes", "device", "parameters", "epochs", "of_epochs", "backend"}
    assert said.keys() == bounds | training | {"paper_nats"}
    assert said["n"] == 2
    assert not not_finite(said)
    assert len((folder / "curve.csv").read_text().splitlines()) == 2


def test_prior(bench: Bench, finished_root: DataRoot) -> None:
    said = bench("prior", finished_root.path, "--steps", 4, "--width", 4)

    assert said.keys() == {"root", "n", "n_train", "auc", "nats"}
    assert {"none", "all"} < set(said["auc"])
    assert {"a Gaussian each, in use", "one Gaussian of all"} < set(said["nats"])
    assert not not_finite(said)


def test_record(bench: Bench, finished_root: DataRoot) -> None:
    said = bench("record", finished_root.path, "--command", "a test", "--name", "tiny")

    same = {"root", "command", "date", "commit", "hardware"}
    assert said.keys() == {"figure", "value", "interval", "n"} | same
    assert (said["figure"], said["root"]) == ("aggregate_posterior:nats", "tiny")
    assert not not_finite(said)


def test_refresh(bench: Bench, root_copy: DataRoot) -> None:
    said = bench("refresh", "--root", root_copy.path, "--repeats", 1)

    assert said.keys() == {
        "unchanged_s",
        "relabel_one_s",
        "images",
        "relabel_parts_s",
        "predictions_over_products",
    }
    assert said["predictions_over_products"] > 1
    faces = load(root_copy).faces
    assert said["images"] == 2 * (faces.d1 + faces.female + faces.male)
    made = {"labels_mouth", "input_model_mouth", "input_values_mouth"}
    assert set(said["relabel_parts_s"]) == made
    assert not not_finite(said)


@pytest.mark.remote
def test_remote(bench: Bench, finished_root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "")  # which the bench sets, and the test takes back
    said = bench("remote", "--pictures", 40, "--root", finished_root.path)
    assert said["pictures"] == 40
    assert said["pictures_per_s"]["push"] > said["pictures_per_s"]["single_put"]
    assert all(rate > 0 for rate in said["pictures_per_s"].values())


def test_render(bench: Bench) -> None:
    said = bench("render", "--check")

    assert said.keys() == {"lines", "pages", "differ"}
    assert said["differ"] == [], "run make results"


def test_retouching(bench: Bench, finished_root: DataRoot, tmp_path: Path) -> None:
    sizes = ("--n", 8, "--set", "steps=1", "batch_size=8", "--makes", "regression")
    methods = ("transport", "rejection", "temperature")
    said = bench("retouching", finished_root.path, *sizes, "--methods", *methods, "--out", tmp_path)

    assert said.keys() == {"root", "n", "guidance", "rows"}
    ways = [row["way"] for row in said["rows"]]
    done = [f"{method} 0.5" for method in methods]
    assert ways == ["as sampled", *done, "reconstructions of the data"]
    assert not not_finite(said)
    evaluations = {row["way"]: row["evaluations"] for row in said["rows"] if "evaluations" in row}
    assert evaluations["rejection 0.5"] == 2  # the sample itself and one other
    assert all(row["retouched"] > 0 for row in said["rows"] if row["way"] in done[1:])
    sheets = {f"{way.replace(' ', '_')}{end}.jpg" for way in done for end in ("", "_most")}
    assert {p.name for p in tmp_path.iterdir()} == sheets


def test_sampling(bench: Bench, finished_root: DataRoot, tmp_path: Path) -> None:
    words = ("--temperatures", 1, "--guidance", 1, "--faces", 1, "--out", tmp_path)
    said = bench("sampling", finished_root.path, *words)

    assert said.keys() == {"rows"}
    [row] = said["rows"]
    assert {"temperature", "guidance", "fd_random_samples", "fd_attributes_real", "r2"} < set(row)
    assert not not_finite(said)
    assert [p.name for p in tmp_path.iterdir()] == ["t1_g1.jpg"]


def test_sampling_refuses_too_few_held_out_pictures(bench: Bench, root_copy: DataRoot) -> None:
    manifest = root_copy.manifest("final_dataset")
    table = pd.read_parquet(manifest)
    table.assign(split=["test"] * 15 + ["train"] * (len(table) - 15)).to_parquet(manifest)
    with pytest.raises(SystemExit, match=r"15 pictures are held out, and distances need 16$"):
        bench("sampling", root_copy.path)


def test_novelty(bench: Bench, finished_root: DataRoot) -> None:
    said = bench(
        "novelty", finished_root.path, "--photographs", finished_root.original(IMAGE_SETS[1])
    )

    changed = {"held_out", "upside_down", "shifted", "small", "noise", "photographs"}
    assert said.keys() == {f"{kind}_{name}" for kind in ("far", "n") for name in changed}
    assert not not_finite(said)
    assert said["far_noise"] == 1


def test_scoring(bench: Bench, finished_root: DataRoot) -> None:
    said = bench("scoring", finished_root.path, "--images", 2, "--one-by-one", 1)

    rates = {"ours_images_per_s", "one_by_one_images_per_s", "times"}
    limits = {"cpu_ms", "cores_busy", "parts_cpu_ms"}
    assert said.keys() == rates | limits | {"images", "parts_s"}
    assert (
        set(said["parts_s"])
        == set(said["parts_cpu_ms"])
        == {"decoding", "gender", "features", "values"}
    )
    assert said["images"] == 2
    assert not not_finite(said)


def test_stability(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = settings.of_preset("tiny")
    smaller = replace(tiny, nvae=replace(tiny.nvae, **FEW))
    monkeypatch.setattr(settings, "of_preset", {"tiny": smaller}.get)
    said = bench("stability", "--seeds", 1, "--rates", 1e-3, "--batches", 8, "--steps", 2)

    assert said.keys() == {"trainings", "steps", "no_numbers", "skipped", "seconds"}
    assert (said["trainings"], said["no_numbers"]) == (1, 0)


def test_train_step(bench: Bench) -> None:
    words = ("--presets", "tiny", "--cells", "dense", "--batch", 2, "--steps", 1)
    said = bench("train_step", *words)

    assert said.keys() == {"rows"}
    [row] = said["rows"]
    of_what = {"preset", "backend", "cell", "batch", "parameters"}
    rates = {"images_per_s", "input_images_per_s", "matmul_gflop_per_s"}
    costs = {"over_convolutions", "peak_mb", "gflop_per_image", "share_of_matmul"}
    assert set(row) == of_what | rates | costs
    assert not not_finite(said)


def test_detail_step(bench: Bench) -> None:
    [row] = bench("detail_step", "--presets", "tiny", "--steps", 1)["rows"]

    figures = {"step_s", "pictures_per_s", "over_convolutions", "peak_mb"}
    assert set(row) == {"preset", "backend", "size"} | figures
    assert all(row[name] > 0 for name in figures)


@pytest.mark.skipif(not find_spec("jax"), reason="needs the extra jax")
def test_step_operations(bench: Bench, tmp_path: Path) -> None:
    root = DataRoot(tmp_path)
    root.settings_file.write_text(with_few_cells(batch_size=64), encoding="utf-8")
    said = bench("step_operations", "--root", tmp_path, "--batch", 2)

    assert said.keys() == {"preset", "weights", "rows"}
    rows = said["rows"]
    assert set(rows) == {"step", "update", "average", "power"}
    for row in rows.values():
        assert 0 < row["fusions"] <= row["instructions"]
        assert 0 < row["started"] <= row["instructions"]
        assert 0 < row["stablehlo"] <= rows["step"]["stablehlo"]
    # an operation per weight at least: the average is a network
    assert rows["average"]["started"] >= said["weights"]


def test_million(bench: Bench, tmp_path: Path) -> None:
    steps = ("tables", "pictures", "near-duplicates", "gender probabilities", "final selection")
    said = bench("million", "--n", 40, "--folder", tmp_path, "--steps", *steps)

    assert said["steps"].keys() == set(steps)
    for figures in said["steps"].values():
        assert figures["40"].keys() == {"seconds", "cpu_seconds", "peak_mib"}
        assert figures["40"]["peak_mib"] > 50
    assert list(tmp_path.iterdir()) == []
