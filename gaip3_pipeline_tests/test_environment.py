"""Variables, files, homes and locales of the user's other projects do not change the pipeline."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from gaip3_pipeline.layout import IMAGE_SETS, REPOSITORY, DataRoot

OTHER = {
    "image_data_format": "channels_first",
    "floatx": "float16",
    "epsilon": 1e-3,
    "backend": "torch",
}
SHOWN = """
print(keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon(),
      keras.backend.backend(), keras.config.max_epochs(), keras.config.max_steps_per_epoch())
"""
NOBODY = ("unshare", "--user", "--map-user=12345")  # a user without an entry in /etc/passwd
EUC_KR = "ko_KR.EUC-KR"


def run(
    *words: object, before: tuple[str, ...] = (), cwd: Path = REPOSITORY, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Python in an environment that contains nothing but ``variables``."""
    return subprocess.run(
        [*before, sys.executable, *map(str, words)],
        env={"PATH": os.defpath, "PYTHONPATH": str(REPOSITORY), **variables},
        capture_output=True,
        timeout=120,
        cwd=cwd,
    )


def gaip3_in(
    *words: object, before: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[bytes]:
    done = run("-m", "gaip3_pipeline.cli", *words, before=before, **variables)
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    return done


def keras_file(home: Path, settings: dict[str, object]) -> None:
    (home / ".keras").mkdir(parents=True)
    (home / ".keras" / "keras.json").write_text(json.dumps(settings), encoding="utf-8")


def test_keras_reads_the_settings_of_the_package_and_not_those_of_the_user(tmp_path: Path) -> None:
    keras_file(tmp_path, OTHER)
    variables = {"KERAS_MAX_EPOCHS": "abc", "KERAS_MAX_STEPS_PER_EPOCH": "1", "KERAS_HOME": "/x"}
    done = run("-c", f"import gaip3_pipeline, keras{SHOWN}", HOME=str(tmp_path), **variables).stdout
    assert done == b"channels_last float32 1e-07 tensorflow None None\n"


def test_a_notebook_that_imports_keras_first_gets_the_same_settings(tmp_path: Path) -> None:
    keras_file(tmp_path, OTHER | {"backend": "tensorflow"})
    done = run(
        "-c",
        f"import keras, gaip3_pipeline{SHOWN}",
        HOME=str(tmp_path),
        KERAS_MAX_EPOCHS="1",
    ).stdout
    assert done == b"channels_last float32 1e-07 tensorflow None None\n"


@pytest.mark.parametrize("backend", ["torch", "TensorFlow", "nosuch"])
def test_a_backend_that_cannot_be_used_is_named_before_anything_is_made(
    gaip3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: str
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", backend)
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    root = DataRoot(tmp_path / "root")
    (root.path / "original").mkdir(parents=True)
    for words in (["generate"], ["retouch", folder], ["refresh"], ["train", "nvae"], ["demo"]):
        done = gaip3(*words, "--root", root.path)
        assert done.exit_code == 1
        line = f"Error: KERAS_BACKEND={backend}: set it to tensorflow or jax, or unset it\n"
        assert done.output == line
    assert not root.settings_file.exists()


def test_a_backend_that_cannot_be_used_is_named_by_the_package_of_the_networks() -> None:
    done = run("-c", "import gaip3_pipeline.models.nvae.model", KERAS_BACKEND="torch")
    assert b"KERAS_BACKEND=torch: set it to tensorflow or jax" in done.stderr
    assert b"No module named" not in done.stderr


def test_without_a_home_directory_the_commands_work(tmp_path: Path) -> None:
    if subprocess.run([*NOBODY, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare with user namespaces")
    root = tmp_path / "root"
    doctor = gaip3_in("doctor", "--root", root, before=NOBODY)
    assert b"no Kaggle credentials" in doctor.stdout
    fetch = gaip3_in("fetch", "--root", root, before=NOBODY, HTTPS_PROXY="http://127.0.0.1:9")
    assert b"the proxy of HTTPS_PROXY does not answer" in fetch.stderr


def korean_root(folder: Path) -> tuple[DataRoot, str]:
    root = DataRoot(folder / "한글 자료")
    original = root.original(IMAGE_SETS[1])
    original.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(original / "얼굴 하나.png")
    return root, root.relative(original / "얼굴 하나.png")


def test_a_locale_without_unicode_changes_no_name(tmp_path: Path) -> None:
    root, picture = korean_root(tmp_path)
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert gaip3_in("drop", picture, "--root", root.path, **ascii_only).returncode == 0
    assert picture in root.dropped.read_text(encoding="utf-8")
    planned = gaip3_in("refresh", "--dry-run", "--root", root.path, **ascii_only)
    assert b"assets to make for the first time" in planned.stdout, planned.stderr


def test_in_a_euc_kr_locale_names_are_utf8_and_what_is_printed_is_euc_kr(tmp_path: Path) -> None:
    compiled = (
        shutil.which("localedef")
        and not subprocess.run(
            ["localedef", "-i", "ko_KR", "-f", "EUC-KR", str(tmp_path / EUC_KR)],
            capture_output=True,
        ).returncode
    )
    if not compiled:
        pytest.skip("needs localedef and the sources of locales")
    root, picture = korean_root(tmp_path)
    locale = {"LOCPATH": str(tmp_path), "LC_ALL": EUC_KR}
    done = gaip3_in("drop", picture, "--root", root.path, **locale)
    assert f"dropped: {picture}".encode("euc_kr") in done.stdout, done.stderr
    assert picture in root.dropped.read_text(encoding="utf-8")
    doctor = gaip3_in("doctor", "--root", root.path, **locale).stdout.decode("euc_kr")
    assert f"{root.path} can be written to" in doctor
    assert "the locale's encoding is EUC-KR" in doctor


CHART = """
import hashlib
import gaip3_pipeline
from gaip3_pipeline.evaluation.charts import histogram
print(hashlib.sha256(histogram([0.1, 0.2, 0.7], "a")).hexdigest())
"""
STYLE = (
    "text.usetex: True\naxes.facecolor: red\nlines.linewidth: 9\nfont.size: 30\nbackend: nosuch\n"
)


def test_charts_do_not_depend_on_matplotlibs_settings_of_the_user(tmp_path: Path) -> None:
    def chart(folder: Path, script: str = CHART, **variables: str) -> bytes:
        done = run("-c", script, cwd=folder, HOME=str(tmp_path / "empty"), **variables)
        assert not done.returncode, done.stderr.decode()
        return done.stdout

    (tmp_path / "empty").mkdir()
    plain = chart(tmp_path)
    own = tmp_path / ".config" / "matplotlib"
    own.mkdir(parents=True)
    (own / "matplotlibrc").write_text(STYLE, encoding="utf-8")
    assert chart(own) == plain  # the current folder
    assert chart(tmp_path, MATPLOTLIBRC=str(own)) == plain
    assert chart(tmp_path, MPLCONFIGDIR=str(own)) == plain
    for backend in ("module://matplotlib_inline.backend_inline", "nosuch", "tkagg"):
        assert chart(tmp_path, MPLBACKEND=backend) == plain


def test_a_notebook_keeps_its_style_and_backend_and_gets_the_same_charts(tmp_path: Path) -> None:
    notebook = "import IPython"
    shown = "from matplotlib import rcParams as p\nprint(p['lines.linewidth'], p['backend'])"
    (tmp_path / "IPython.py").write_text("version_info = (9, 0)\ndef get_ipython(): pass")
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9", encoding="utf-8")
    here = {"cwd": tmp_path, "HOME": str(tmp_path)}
    done = run("-c", f"{notebook}\n{CHART}\n{shown}", MPLBACKEND="svg", **here).stdout
    assert done == run("-c", CHART, **here).stdout + b"9.0 svg\n"


def test_a_matplotlibrc_that_matplotlib_cannot_read_is_named_before_anything_is_made(
    gaip3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = DataRoot(tmp_path / "root")
    root.originals.mkdir(parents=True)
    (tmp_path / "matplotlibrc").write_bytes("# 한글".encode("cp949"))
    monkeypatch.chdir(tmp_path)
    line = f"{tmp_path / 'matplotlibrc'}: not UTF-8 (byte 2)"
    done = gaip3("refresh", "--root", root.path)
    assert (done.exit_code, done.output) == (
        1,
        f"Error: {line}; save it as UTF-8 or move it away\n",
    )
    assert line in gaip3("doctor", "--root", root.path).output


QUIET = """
import os, gaip3_pipeline
from gaip3_pipeline.environment import without_remarks
from gaip3_pipeline.features.landmarks import find_parts
import keras, numpy as np
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("adam", "mse")
model.fit(np.zeros((8, 4)), np.zeros((8, 1)), verbose=0)
find_parts(np.zeros((2, 128, 104, 3), np.uint8))
with without_remarks():
    os.write(2, b"I0000 00:00:1.5   7 port.cc:153] about myself\\nan error\\nanother, cut off")
"""


def test_frameworks_say_nothing_about_themselves_and_errors_stay() -> None:
    done = run("-c", QUIET)
    assert done.returncode == 0
    assert done.stderr == b"an error\nanother, cut off"
