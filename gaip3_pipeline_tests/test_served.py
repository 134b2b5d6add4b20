"""Registered models load in MLflow without the repository, and answer over HTTP."""

import base64
import dataclasses
import io
import json
import os
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.definitions import tracking_of
from gaip3_pipeline.layout import REPOSITORY, DataRoot
from gaip3_pipeline.mlflow_tracking import MlflowTracking
from gaip3_pipeline.sampling.draw import load_face_generator
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.contracts import read_all_input_values
from gaip3_pipeline_tests.web.browser import WITHOUT_PROXY
from gaip3_pipeline_tests.web.processes import free_port

FACES = pd.DataFrame(
    [[0.5, 0.2, 0.7, 0.3, 0.5], [0.9, 0.8, 0.2, 0.6, 0.4]], columns=list(ATTRIBUTES)
)
LOAD = """
import sys, mlflow, pandas as pd, gaip3_pipeline
mlflow.set_tracking_uri(sys.argv[1])
found = mlflow.pyfunc.load_model(sys.argv[2]).predict(pd.read_parquet(sys.argv[3]))
found.to_parquet(sys.argv[4])
print(gaip3_pipeline.__file__)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the project's wheel, and with the packages of this
    one in place of a download."""
    folder = tmp_path_factory.mktemp("elsewhere")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "venv", symlinks=True)
    [packages] = (folder / "venv/lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(packages)
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "venv/bin/python"


@pytest.fixture(scope="module")
def tracking(
    copy_finished_root: Callable[[Path], DataRoot], tmp_path_factory: pytest.TempPathFactory
) -> MlflowTracking:
    """The registry of a copy of the finished root."""
    copy = copy_finished_root(tmp_path_factory.mktemp("registry") / "root")
    tracking = tracking_of(copy, load(copy))
    tracking.follow_root()
    return tracking


def predicted(
    python: Path, tracking: MlflowTracking, model: str, given: pd.DataFrame, folder: Path
) -> pd.DataFrame:
    given.to_parquet(folder / "given")
    done = subprocess.run(
        [python, "-c", LOAD, tracking.uri, model, folder / "given", folder / "found"],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(python.parents[1]))  # the wheel's
    return pd.read_parquet(folder / "found")


def test_a_generator_draws_the_faces_of_the_pipeline_elsewhere(
    finished_root: DataRoot, python: Path, tracking: MlflowTracking, tmp_path: Path
) -> None:
    given = FACES.assign(seed=[7, 8], guidance=[1.5, 1.0])
    found = predicted(python, tracking, "models:/detail_weights@candidate", given, tmp_path)
    drawn = [np.asarray(Image.open(io.BytesIO(png))) for png in found.png]
    generator, values = load_face_generator(finished_root), FACES.to_numpy(np.float32)
    usual = load(finished_root).samples  # temperature and detail by default
    ways = dataclasses.replace(usual, guidance=1.5)
    [[first]] = generator.draw(np.array([7]), values[:1], ways)
    assert np.abs(drawn[0].astype(int) - first).max() <= 1
    plain = predicted(python, tracking, "models:/nvae_weights@candidate", given, tmp_path)
    assert plain.png[0] != found.png[0]  # the mean picture, without detail


def test_models_of_pictures_tell_elsewhere_what_they_told_the_pipeline(
    finished_root: DataRoot, python: Path, tracking: MlflowTracking, tmp_path: Path
) -> None:
    values = read_all_input_values(finished_root).iloc[:3]
    pictures = [(finished_root.path / path).read_bytes() for path in values.index]
    given = pd.DataFrame({"picture": pictures})
    mouth = predicted(python, tracking, "models:/input_model_mouth@candidate", given, tmp_path)
    np.testing.assert_allclose(mouth.value, values.mouth, atol=1e-4)
    assert (mouth.deviation > 0).all()
    for model, column in (("gender_model", "female"), ("critic_weights", "logit")):
        found = predicted(python, tracking, f"models:/{model}@candidate", given, tmp_path)
        assert np.isfinite(found[column]).all()
    kinds = {m.name for m in tracking.client().search_registered_models()}
    assert {"evaluator_eyes", "control_regressor", "judge_weights"} <= kinds


@pytest.fixture
def address(python: Path, tracking: MlflowTracking, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    words = [python, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    words += ["-m", "models:/detail_weights@candidate", "-h", "127.0.0.1", "-p", str(port)]
    with (tmp_path / "log").open("wb") as log:
        path = f"{python.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}"
        server = subprocess.Popen(
            words,
            cwd=tmp_path,
            env=os.environ
            | {"MLFLOW_TRACKING_URI": tracking.uri, "PATH": path + os.environ["PATH"]},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 180
        while True:
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            try:
                WITHOUT_PROXY.open(f"http://127.0.0.1:{port}/ping", timeout=5)
                break
            except (OSError, urllib.error.URLError):
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, 9)
        server.wait()


def test_a_served_generator_answers_with_a_face(address: str) -> None:
    body = {"dataframe_split": FACES.iloc[:1].assign(seed=11).to_dict(orient="split")}
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with WITHOUT_PROXY.open(request, timeout=120) as answer:
        [row] = json.load(answer)["predictions"]
    face = Image.open(io.BytesIO(base64.b64decode(row["png"])))
    assert face.format == "PNG"
    assert np.asarray(face).std() > 1
