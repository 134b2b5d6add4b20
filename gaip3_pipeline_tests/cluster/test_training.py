"""Trainings on the nodes of a real Ray cluster: independent ones, and one model on two of them."""

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaip3_pipeline.cluster.connection import ClusterError
from gaip3_pipeline.cluster.job import run_module
from gaip3_pipeline.layout import sweep_result
from gaip3_pipeline.settings import Cluster, Detail, load
from gaip3_pipeline.sweep import ARGUMENTS, MEASURE, Sweep, grid
from gaip3_pipeline.training.run import Run
from gaip3_pipeline_tests.cluster.nodes import Nodes, ip
from gaip3_pipeline_tests.test_sweep import inputs_of_a_generator

pytestmark = pytest.mark.cluster
TWO = Cluster(workers=2)
SMALL_DETAIL = Detail(
    channels=(4, 6), discriminator=(4, 6, 8), epochs=2, steps=3, batch_size=8, values=1.0
)


@pytest.fixture(scope="module")
def driver(nodes: Nodes) -> Iterator[Nodes]:
    """This process as a driver of the cluster, whose work uses JAX."""
    import ray

    ray.init(
        address=nodes.address,
        log_to_driver=False,
        configure_logging=False,
        runtime_env={"env_vars": {"KERAS_BACKEND": "jax", "OPENBLAS_NUM_THREADS": "1"}},
    )
    yield nodes
    ray.shutdown()


def _fit(until: int, run: Run, show: Callable[[int, Any], None] | None = None) -> int:
    """Train up to the epoch ``until`` of 4: noise, batch normalisation, dropout and the optimiser
    all depend on the whole batch. Returns the number of epochs trained here."""
    import keras

    from gaip3_pipeline.models.backend import seed_everything
    from gaip3_pipeline.training.batches import ArrayBatches
    from gaip3_pipeline.training.fit import fit
    from gaip3_pipeline.training.optimizer import SpikeSkippingAdamax

    keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])  # as a guide, loaded before
    seed_everything(3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.GaussianNoise(0.1, seed=1),
            keras.layers.Dense(8, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2, seed=2),
            keras.layers.Dense(1),
        ]
    )
    model.compile(SpikeSkippingAdamax(0.01, spike=10.0, clip_norm=0.5), loss="mse")
    x = np.random.default_rng(0).normal(size=(75, 6)).astype(np.float32)
    data = {"x": x, "y": x[:, :1] * 2 - x[:, 1:2]}

    def noisy(batch: dict[str, np.ndarray], random: np.random.Generator) -> Any:
        return batch["x"] + random.normal(0, 0.01, batch["x"].shape).astype(np.float32), batch["y"]

    trained: list[int] = []

    def log(epoch: int, figures: dict[str, float]) -> None:
        trained.append(epoch)
        run.log(epoch, figures)

    fit(
        model,
        ArrayBatches(data, 16, 1, noisy),
        Run(run.folder, "a", log, run.progress, rank=run.rank, world=run.world),
        epochs=4,
        # the last of these batches has 11 rows, which two processes cannot share
        validation=ArrayBatches(data, 16, 0, noisy, shuffle=False),
        is_over=lambda history: len(history) >= until,
    )
    if show:
        show(len(trained), x[:1])
    return len(trained)


def _fit_alone(until: int, number: int, run: Run) -> int:
    return _fit(until, run)


def _variables(folder: Path) -> list[np.ndarray]:
    [file] = (folder / "checkpoints").glob("epoch_*.npz")
    with np.load(file) as kept:
        return [kept[name] for name in kept.files]


def test_two_processes_train_as_one_and_a_training_continues_on_another_number_of_them(
    driver: Nodes, tmp_path: Path
) -> None:
    from gaip3_pipeline.cluster.training import RayTrainings, Together

    logs: dict[str, list[tuple[int, dict[str, float]]]] = {"one": [], "two": []}
    shown = []
    runs = {
        name: Run(tmp_path / name, "a", lambda *told, to=log: to.append(told))
        for name, log in logs.items()
    }
    alone = RayTrainings(Cluster())
    assert list(alone(functools.partial(_fit_alone, 2), [runs["one"]])) == [2]
    Together(TWO)(functools.partial(_fit, 2), runs["two"], lambda *told: shown.append(told))
    assert [epoch for epoch, _ in shown] == [2]  # of process 0 alone
    for a, b in zip(_variables(tmp_path / "one"), _variables(tmp_path / "two"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)

    assert list(alone(functools.partial(_fit_alone, 4), runs.values())) == [2, 2]
    for a, b in zip(_variables(tmp_path / "one"), _variables(tmp_path / "two"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    assert [epoch for epoch, _ in logs["two"]] == [1, 2, 3, 4]
    for (_, one), (_, two) in zip(*logs.values(), strict=True):
        assert one == pytest.approx(two, abs=1e-5)


def _fit_detail(run: Run, show: Callable[[int, Any], None] | None = None) -> dict[str, Any]:
    """Train a small detail network with a guide, and return its metrics."""
    import keras

    from gaip3_pipeline.training.detail import Pool, Watched, train_detail

    random = np.random.default_rng(0)
    sharp = random.integers(0, 256, (12, 16, 14, 3), np.uint8)
    soft = (sharp // 2 + 64).astype(np.uint8)
    values = random.random((12, 5), np.float32)
    keras.utils.set_random_seed(1)
    guide = keras.Sequential(
        [keras.Input((16, 14, 3)), keras.layers.Flatten(), keras.layers.Dense(5)]
    )
    result = train_detail(
        Pool(soft[::-1], values[::-1], soft, np.arange(12), sharp, values),
        Watched(soft[:5], sharp),  # five pictures, which two processes cannot share
        SMALL_DETAIL,
        run,
        guides=[guide],
        start=None,
        show=show,
    )
    return result.figures


def _fit_detail_alone(number: int, run: Run) -> dict[str, Any]:
    return _fit_detail(run)


def test_two_processes_train_a_detail_network_as_one(driver: Nodes, tmp_path: Path) -> None:
    from gaip3_pipeline.cluster.training import RayTrainings, Together

    one, two = Run(tmp_path / "one", "a"), Run(tmp_path / "two", "a")
    [figures] = RayTrainings(Cluster())(_fit_detail_alone, [one])
    shown: list[np.ndarray] = []
    Together(TWO)(_fit_detail, two, lambda epoch, faces: shown.append(faces))
    assert len(shown) == SMALL_DETAIL.epochs
    for a, b in zip(_variables(tmp_path / "one"), _variables(tmp_path / "two"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    found = json.loads((two.checkpoints / "last.json").read_text())["history"][-1]
    assert found["val_power_1"] == pytest.approx(figures["power_1"], rel=1e-4)


def test_a_process_alone_is_refused_where_two_were_asked_for(driver: Nodes, tmp_path: Path) -> None:
    from gaip3_pipeline.cluster.training import RayTrainings
    from gaip3_pipeline.models.backend import WorldError

    half = Run(tmp_path, "a", rank=0, world=2)
    with pytest.raises(WorldError, match=r"2 processes were to train .* this one found 1"):
        list(RayTrainings(Cluster())(functools.partial(_fit_alone, 1), [half]))


def test_more_processes_than_the_cluster_has_room_for_are_refused(
    driver: Nodes, tmp_path: Path
) -> None:
    from gaip3_pipeline.cluster.training import Together

    with pytest.raises(ClusterError, match=r"9 processes of 1 CPUs each do not fit"):
        Together(Cluster(workers=9))(functools.partial(_fit, 1), Run(tmp_path, "a"), print)


def _slow(number: int, run: Run) -> int:
    with (run.folder / "starts").open("a") as starts:
        starts.write(f"{number}\n")
    for epoch in range(20):
        run.log(epoch, {"loss": 0.0})
        time.sleep(0.2)
    return number


def test_a_training_whose_node_is_lost_is_repeated_and_the_others_go_on(
    driver: Nodes, tmp_path: Path
) -> None:
    from gaip3_pipeline.cluster.training import RayTrainings

    driver.start(ip(9))
    heard: set[str] = set()

    def log(name: str, epoch: int, figures: dict[str, float]) -> None:
        heard.add(name)
        if len(heard) == 3 and ip(9) in driver:
            driver.kill(ip(9))  # each of the three nodes runs one of the trainings

    runs = [Run(tmp_path, name, functools.partial(log, name)) for name in "abc"]
    assert list(RayTrainings(Cluster())(_slow, runs)) == [0, 1, 2]
    assert ip(9) not in driver
    starts = (tmp_path / "starts").read_text().split()
    assert sorted(set(starts)) == ["0", "1", "2"]
    assert len(starts) == 4


def test_a_sweep_runs_as_a_job_of_the_cluster_and_keeps_what_is_finished(
    nodes: Nodes, tmp_path: Path
) -> None:
    root = inputs_of_a_generator(tmp_path / "root")
    with root.settings_file.open("a") as settings:
        settings.write("[tracking]\nenabled = false\n")
    given = {"given": ["learning_rate=.002,.005"], "seeds": 2, "epochs": None}
    state: dict[str, Any] = {"inputs": {"final_dataset": "f"}, "code_version": "5"}
    sweep = Sweep(grid(load(root), *given.values()), **state)  # type: ignore[arg-type]
    for number, bits in enumerate([5.0, 5.2, 4.0, 4.2]):
        file = sweep_result(root.sweep_point(sweep.id, number))
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({MEASURE: bits}))
    written: list[str] = []
    arguments = json.dumps({"root": str(root.path), **given, **state})
    done = run_module(
        root, nodes.jobs, "gaip3_pipeline.sweep", {ARGUMENTS: arguments}, written.append
    )
    lines = "".join(written).splitlines()
    assert done, lines
    assert f"sweep {sweep.id}: 4 trainings, 4 of them finished" in lines
    assert [line.split()[0] for line in lines[-2:]] == ["0.005", "0.002"]
    assert "4.1000 ± 0.1414" in lines[-2]
