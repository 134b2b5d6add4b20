"""The doctor names what is missing and how to get it."""

import fcntl
import os
import socket
import sqlite3
import time
import unicodedata
from pathlib import Path

import pytest

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.setup.doctor import Finding, doctor


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    """A root with one image in each set and a label for those of D2."""
    root = DataRoot(tmp_path / "내 data")
    for image_set in IMAGE_SETS:
        root.original(image_set).mkdir(parents=True)
        (root.original(image_set) / "얼굴 1.jpg").write_bytes(b"not looked at")
    (root.path / "labels").mkdir()
    for attribute in ATTRIBUTES:
        rows = "female,0,resized/얼굴 1.png,0.5\nmale,0,resized/얼굴 1.png,1\n"
        root.hand_labels(attribute).write_text(
            f"gender,img_id,path,value\n{rows}", encoding="utf-8"
        )
    return root


def about(text: str, root: DataRoot) -> Finding:
    said = list(doctor(root))
    found = [f for f in said if text in f.what]
    assert len(found) == 1, [f.what for f in said]
    return found[0]


def test_nothing_is_missing_from_a_root_that_has_all(root: DataRoot) -> None:
    assert [f for f in doctor(root) if f.state == "missing"] == []
    assert about("train_output_mouth.csv", root).what == "labels/train_output_mouth.csv: 2 labels"


def test_for_an_empty_root_the_doctor_says_how_to_get_images_and_labels(tmp_path: Path) -> None:
    missing = [f for f in doctor(DataRoot(tmp_path / "new")) if f.state == "missing"]
    assert len(missing) == 1 + len(IMAGE_SETS) + len(ATTRIBUTES)
    assert missing[0].what == f"{tmp_path / 'new'} is not there"
    assert all(f.remedy for f in missing)
    assert "gaip3 fetch" in missing[0].remedy
    assert not (tmp_path / "new").exists()


def test_the_doctor_changes_nothing(root: DataRoot) -> None:
    before = sorted(root.path.rglob("*"))
    list(doctor(root))
    assert sorted(root.path.rglob("*")) == before


def test_a_malformed_label_file_is_named_with_its_row(root: DataRoot) -> None:
    with root.hand_labels("head").open("a") as file:
        file.write("female,1,resized/b.png,2\n")
    found = about("train_output_head.csv", root)
    assert found.state == "missing"
    assert "line 4: column value is '2'" in found.what


def test_labels_of_images_that_are_not_there_are_counted(root: DataRoot) -> None:
    with root.hand_labels("eyes").open("a") as file:
        file.write("female,1,resized/gone.png,1\n")
    found = about("train_output_eyes.csv", root)
    assert found.state == "warning"
    assert "2 labels are used, 1 are not: line 4: there is no image gone" in found.what


def test_a_settings_file_that_cannot_be_used_is_named(root: DataRoot) -> None:
    root.settings_file.write_text('preset = "seed"\n[nvae]\nepoch = 3\n')
    found = about("epoch", root)
    assert (found.state, str(root.settings_file) in found.remedy) == ("missing", True)


def test_variables_and_files_of_other_projects_are_named(
    root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert about("Keras on tensorflow", root).state == "ok"
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text('{"floatx": "float16", "backend": "torch"}')
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: NVIDIA T4 (UUID: 1)'\n")
    (programs / "nvidia-smi").chmod(0o755)
    for name, value in {
        "KERAS_BACKEND": "torch",
        "XLA_FLAGS": "--nosuch",
        "MLFLOW_TRACKING_URI": "http://elsewhere:5000",
        "CUDA_VISIBLE_DEVICES": "typo",
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    for what, state, remedy in (
        ("KERAS_BACKEND=torch", "missing", "set it to tensorflow or jax, or unset it"),
        ("XLA_FLAGS=--nosuch", "warning", "unset XLA_FLAGS"),
        ("MLFLOW_TRACKING_URI=http://elsewhere:5000 is not used", "warning", "[tracking]"),
        ("NVIDIA T4, of which CUDA_VISIBLE_DEVICES=typo", "warning", "unset"),
        ("keras.json (floatx float16, backend torch) is for other projects", "ok", ""),
    ):
        found = about(what, root)
        assert (found.state, remedy in found.remedy) == (state, True), found
    monkeypatch.setenv("HOME", "/proc/nosuch")
    assert "HOME" in about("home directory /proc/nosuch cannot be written to", root).remedy


def test_labels_that_are_missing_can_be_made_on_the_label_page(tmp_path: Path) -> None:
    remedy = about("train_output_eyes.csv", DataRoot(tmp_path)).remedy
    for command in ("gaip3 label", "gaip3 import-labels", "gaip3 import-first-run"):
        assert command in remedy


def test_ports_in_use_are_named(root: DataRoot) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for server in ("dagster_port", "mlflow_port", "label_port"):
            found = [f for f in doctor(root, **{server: port}) if f"port {port}" in f.what]
            assert [f.state for f in found] == ["warning"]


def test_files_of_killed_writes_are_found_and_those_of_running_ones_are_not(root: DataRoot) -> None:
    for name, age in (("old", 7200), ("young", 5)):
        file = root.path / "labels" / f".writing-{name}.csv"
        file.touch()
        os.utime(file, (time.time() - age,) * 2)
    found = about("interrupted writes", root)
    assert found.what.startswith("1 files of interrupted writes")
    assert "labels/.writing-old.csv" in found.what


def test_a_locked_and_a_damaged_database_are_told_apart(root: DataRoot) -> None:
    root.state.mkdir()
    (root.state / "damaged.db").write_bytes(b"no database at all" * 100)
    with (root.path / "other").open("w") as other, sqlite3.connect(root.mlflow_db) as writer:
        fcntl.lockf(other, fcntl.LOCK_EX)  # another file, locked as a whole, as browsers do
        writer.execute("CREATE TABLE runs (id)")
        writer.commit()
        writer.execute("BEGIN IMMEDIATE")
        assert about("mlflow.db", root).state == "warning"
        writer.rollback()
        assert about("1 databases of Dagster, MLflow", root).state == "ok"
    assert about("damaged.db", root).state == "missing"


def test_a_store_that_the_settings_name_is_tried(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FACES_DB", raising=False)
    root.settings_file.write_text('preset = "tiny"\n[storage]\ndagster = "env:FACES_DB"\n')
    assert about("variable FACES_DB is not set", root).state == "missing"
    root.settings_file.write_text('preset = "tiny"\n[tracking]\nuri = "http://127.0.0.1:1"\n')
    assert about("127.0.0.1:1 does not answer", root).state == "missing"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o555)
    assert about("cannot be written to", DataRoot(tmp_path / "theirs")).state == "missing"


def test_a_kaggle_file_that_cannot_be_read_is_a_warning(
    root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    # where every set has pictures, there is nothing to fetch
    assert not [f for f in doctor(root) if "Kaggle" in f.what]
    for path in root.original(IMAGE_SETS[0]).iterdir():
        path.unlink()
    assert about("no Kaggle credentials", root).state == "warning"
    (tmp_path / "kaggle.json").write_text("{")
    found = about("Invalid Kaggle credentials", root)
    assert (found.state, "Generate New Token" in found.remedy) == ("warning", True)


def test_photographs_that_cannot_be_read_are_counted_and_sidecars_are_not(root: DataRoot) -> None:
    folder = root.original(IMAGE_SETS[0])
    for name in ("a.heic", "b.HEIC", "a.json", ".DS_Store", "@eaDir/b.jpg", "c.jfif"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    found = about("cannot be read as pictures", root)
    assert found.state == "warning"
    assert found.what.endswith("10k: 2 files cannot be read as pictures, such as a.heic")
    assert found.remedy == "HEIC pictures are not read: convert it to JPEG or PNG"
    assert about("10k: 2 images", root).state == "ok"


def test_a_label_of_a_name_in_another_unicode_spelling_is_used(root: DataRoot) -> None:
    path = root.hand_labels("eyes")
    text = path.read_text(encoding="utf-8")
    path.write_text(unicodedata.normalize("NFD", text), encoding="utf-8")
    assert about("train_output_eyes.csv", root).what == "labels/train_output_eyes.csv: 2 labels"


def test_what_cannot_be_read_is_a_finding_and_all_others_are_shown(root: DataRoot) -> None:
    whole = [f.what for f in doctor(root)]
    for path in (root.hand_labels("eyes"), root.settings_file, root.dropped):
        path.unlink(missing_ok=True)
        path.mkdir(parents=True)
    found = {f.what: f for f in doctor(root)}
    for path in (root.hand_labels("eyes"), root.settings_file, root.dropped):
        finding = found[f"{path} cannot be read: Is a directory"]
        assert finding.state == "missing"
        assert "move it away" in finding.remedy
    gone = [w for w in whole if w not in found and "memory" not in w and "disk" not in w]
    settings, labels = gone
    assert settings.startswith("settings: preset seed (generators: small 64 × 52, ")
    assert labels == "labels/train_output_eyes.csv: 2 labels"


def test_findings_are_printed_as_they_are_made(root: DataRoot) -> None:
    findings = doctor(root)
    assert next(findings).what.startswith("Python")
    path = root.hand_labels("mouth")
    path.unlink()
    assert "train_output_mouth.csv: the file does not exist" in "".join(f.what for f in findings)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_the_right_to_read_are_findings(root: DataRoot) -> None:
    root.settings_file.write_text("")
    for path in (root.hand_labels("eyes"), root.settings_file):
        path.chmod(0)
        assert about(f"{path} cannot be read: Permission denied", root).state == "missing"


def test_what_a_refresh_refuses_is_named(root: DataRoot) -> None:
    folder = root.original(IMAGE_SETS[1])
    assert not [f for f in doctor(root) if "dropped" in f.what or "two originals" in f.what]
    (folder / "sub").mkdir()
    (folder / "sub" / "얼굴 1.png").touch()
    root.dropped.parent.mkdir()
    root.dropped.write_text("path,reason\nelsewhere/a.jpg,blurred\n", encoding="utf-8")
    found = about("two originals are called '얼굴 1'", root)
    assert found.state == "missing"
    assert str(folder / "sub" / "얼굴 1.png") in found.what
    assert found.remedy == "rename or remove one of them"
    found = about(f"{root.dropped}, line 2, column path", root)
    assert (found.state, found.remedy.startswith("correct the file")) == ("missing", True)
    root.dropped.write_text("path,reason\noriginal/ThisPersonDoesNotExist/Female/a.jpg,\n")
    assert about("1 dropped originals", root).state == "ok"
