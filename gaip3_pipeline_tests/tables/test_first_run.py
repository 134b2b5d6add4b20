"""The files of the first run are moved to their places in a data root."""

import os
import shutil
import unicodedata
from pathlib import Path, PurePosixPath

import pytest

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.tables.first_run import FirstRunError, import_first_run

FILES = {
    "dataset/original/thispersondoesnotexist.10k/가나 다.jpg": (
        "original/thispersondoesnotexist.10k/가나 다.jpg"
    ),
    "dataset/original/ThisPersonDoesNotExist/Female/a 1.jpg": (
        "original/ThisPersonDoesNotExist/Female/a 1.jpg"
    ),
    "dataset/resized/female/a 1.png": "resized/female/a 1.png",
    "dataset/augmented/male/b.png": "augmented/male/b.png",
    "dataset/final/resized_female_a 1.jpg": "final/resized_female_a 1.jpg",
    "models/data/train_output_eyes.csv": "labels/train_output_eyes.csv",
    "models/data/all_output_decide_train_data.csv": "predictions/all_output_decide_train_data.csv",
    "models/decide_train_data/model_0.keras": "models/decide_train_data/model_0.keras",
    "models/model_0.h5": "models/model_0.h5",
    "logs/trainlog_nvae.md": "logs/trainlog_nvae.md",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "첫 run"
    for name in FILES:
        write(folder / name, f"content of {name}")
    write(folder / "train.py", "not data")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return DataRoot(tmp_path / "data root")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def contents(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8")
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_every_file_moves_to_its_new_place_and_the_rest_stays(source: Path, root: DataRoot) -> None:
    report = import_first_run(source, root)
    assert contents(root.path) == {new: f"content of {old}" for old, new in FILES.items()}
    assert contents(source) == {"train.py": "not data"}
    assert not (source / "dataset").exists()
    assert len(report.moved) == len(FILES)
    assert report.complete
    assert "moved               1  models/data/ -> labels/" in str(report).splitlines()


def test_a_dry_run_lists_the_same_and_touches_nothing(source: Path, root: DataRoot) -> None:
    before = contents(source)
    listed = import_first_run(source, root, dry_run=True)
    assert contents(source) == before
    assert not root.path.exists()
    assert import_first_run(source, root) == listed


def test_a_different_file_is_named_and_neither_is_touched(source: Path, root: DataRoot) -> None:
    write(root.hand_labels("eyes"), "corrected since")
    report = import_first_run(source, root)
    assert report.different == [PurePosixPath("models/data/train_output_eyes.csv")]
    assert not report.complete
    assert "the root has another labels/train_output_eyes.csv" in str(report)
    assert root.hand_labels("eyes").read_text() == "corrected since"
    assert (source / "models/data/train_output_eyes.csv").exists()
    assert len(report.moved) == len(FILES) - 1


def test_an_interrupted_import_continues(source: Path, root: DataRoot) -> None:
    # One file was moved; one was linked under its new name, and its old name is not yet removed.
    done, linked, *_ = FILES
    for name in (done, linked):
        (root.path / FILES[name]).parent.mkdir(parents=True)
        os.link(source / name, root.path / FILES[name])
    (source / done).unlink()
    report = import_first_run(source, root)
    assert contents(root.path) == {new: f"content of {old}" for old, new in FILES.items()}
    assert len(report.moved) == len(FILES) - 1


def test_another_file_system_gets_copies_and_the_source_stays(source: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == source.stat().st_dev:
        pytest.skip("needs a second file system")
    before = contents(source)
    target = memory / f"gaip3-test-{os.getpid()}"
    try:
        report = import_first_run(source, DataRoot(target))
        assert contents(target) == {new: f"content of {old}" for old, new in FILES.items()}
        assert contents(source) == before
        assert len(report.copied) == len(FILES)
        again = import_first_run(source, DataRoot(target))
        assert len(again.present) == len(FILES)
        assert again.copied == []
    finally:
        shutil.rmtree(target, ignore_errors=True)


def test_symbolic_links_are_named_and_left(source: Path, root: DataRoot, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (source / "dataset/original/more").symlink_to(tmp_path / "elsewhere")
    report = import_first_run(source, root)
    assert report.links == [PurePosixPath("dataset/original/more")]
    assert (source / "dataset/original/more").is_symlink()


def test_a_name_that_no_terminal_shows_takes_one_line_of_the_report(
    source: Path, root: DataRoot
) -> None:
    (source / "logs" / os.fsdecode(b"\xff\n.md")).symlink_to("nothing")
    said = str(import_first_run(source, root))
    assert "left          logs/\\xff\\n.md: a symbolic link" in said.splitlines()[-1]
    said.encode()


def test_a_folder_that_is_no_first_run_is_refused(tmp_path: Path, root: DataRoot) -> None:
    with pytest.raises(FirstRunError, match="not a folder"):
        import_first_run(tmp_path / "missing", root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FirstRunError, match="name the folder that holds them"):
        import_first_run(tmp_path / "empty", root)


def test_a_root_inside_what_is_imported_is_refused(source: Path) -> None:
    with pytest.raises(FirstRunError, match="choose another root"):
        import_first_run(source, DataRoot(source / "dataset"))


def test_the_first_runs_own_tables_arrive_byte_for_byte(
    first_run_tables: Path, tmp_path: Path, root: DataRoot
) -> None:
    tables = sorted(first_run_tables.glob("*/*.csv"))
    data = tmp_path / "old" / "models" / "data"
    data.mkdir(parents=True)
    for table in tables:
        shutil.copyfile(table, data / table.name)
    assert import_first_run(tmp_path / "old", root).complete
    by_name = {table.name: table.read_bytes() for table in tables}
    for attribute in ATTRIBUTES:
        for place in (root.hand_labels(attribute), root.input_values(attribute)):
            assert place.read_bytes() == by_name[place.name]
    assert root.gender_probabilities.read_bytes() == by_name[root.gender_probabilities.name]
    assert {root.original(s).relative_to(root.path).parts[0] for s in IMAGE_SETS} == {"original"}


def test_a_file_that_the_root_has_in_another_unicode_spelling_is_not_moved(
    tmp_path: Path, root: DataRoot
) -> None:
    nfc, nfd = (unicodedata.normalize(form, "\uac00.jpg") for form in ("NFC", "NFD"))
    write(tmp_path / "old/dataset/original/thispersondoesnotexist.10k" / nfd, "one")
    write(root.original(IMAGE_SETS[0]) / nfc, "one")
    report = import_first_run(tmp_path / "old", root)
    assert len(report.present) == 1
    assert os.listdir(root.original(IMAGE_SETS[0])) == [nfc]
