"""Which files of a folder ``gaip3 retouch`` uses, and the names of their results."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from gaip3_pipeline.studio.results import (
    COLUMNS,
    OutputError,
    find_photographs,
    result_names,
)
from gaip3_pipeline.tables.problems import ContractError


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def results(out: Path, *rows: tuple[str, str], folder: Path | None = None) -> None:
    """What a run leaves in ``out``: a table of (file, picture), the pictures and the sheet."""
    files(out, "changes.jpg", *(picture for _, picture in rows if picture))
    table = pd.DataFrame(rows, columns=["file", "picture"]).reindex(columns=COLUMNS)
    table.assign(folder=str(folder or out.parent)).to_csv(out / "retouched.csv", index=False)


def test_results_have_names_of_their_own_that_depend_on_the_names_alone(tmp_path: Path) -> None:
    names = [
        "a.jpg",
        "b.JPEG",
        "c.png",
        "c.png.jpg",
        "c.png.jpg.jpg",
        "d.jfif",
        "e.f.webp",
        "g/a.jpg",
    ]
    assert result_names(names, tmp_path) == [
        "a.jpg",
        "b.JPEG",
        "c.png.jpg",
        "c.png.jpg.jpg",
        "c.png.jpg.jpg.jpg",
        "d.jfif",
        "e.f.webp.jpg",
        "g/a.jpg",
    ]
    assert result_names(["c.png.jpg"], tmp_path) == ["c.png.jpg.jpg"]


@pytest.mark.parametrize(
    "names",
    [
        ("A.jpg", "a.jpg", "a.JPG"),
        ("x/a.png", "X/a.png"),
        tuple(unicodedata.normalize(form, "\xe9.jpg") for form in ("NFC", "NFD")),
        ("changes.jpg", "Changes.JPG"),
    ],
)
def test_no_two_results_have_one_name_on_a_file_system_that_ignores_case_and_spelling(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    made = result_names(names, tmp_path)
    alike = {unicodedata.normalize("NFC", name).casefold() for name in made}
    assert len(alike) == len(names)
    assert alike.isdisjoint({"changes.jpg", "retouched.csv"})
    assert [Path(name).parent for name in made] == [Path(name).parent for name in names]
    assert made == result_names(names[::-1], tmp_path)[::-1]


def test_results_of_this_and_of_other_runs_are_left_out_and_named(tmp_path: Path) -> None:
    folder = files(tmp_path / "photos", "a.jpg", "trip/b.jpg")
    out = folder / "out"
    results(out, ("a.jpg", "a.jpg"), ("trip/b.jpg", "trip/b.jpg"), folder=folder)
    results(folder / "trip-retouched", ("b.jpg", "b.jpg"), ("c.jpg", "more/c.jpg"))
    work = find_photographs(folder, out)
    assert [p.relative_to(folder).as_posix() for p in work.pictures] == ["a.jpg", "trip/b.jpg"]
    assert sorted(o.path.name for o in work.others) == ["out", "trip-retouched"]
    assert {o.reason for o in work.others} == {"left out: a folder with results of gaip3 retouch"}
    assert work.found == 2


def test_every_other_file_is_named_and_photographs_among_them_are_counted(tmp_path: Path) -> None:
    folder = files(tmp_path / "photos", "a.jpg", "b.heic", "a.json", "d" * 251 + ".png", ".x.jpg")
    work = find_photographs(folder, tmp_path / "out")
    assert [p.name for p in work.pictures] == ["a.jpg"]
    reasons = {o.path.name[:6]: o.reason for o in work.others}
    assert reasons["a.json"] == "left out: not a picture (.json)"
    assert reasons["b.heic"].startswith("HEIC pictures are not read")
    assert reasons["dddddd"].endswith("names made from it may have 255; shorten it by 4 bytes")
    assert work.found == 3


@pytest.mark.parametrize("name", ["a.jpg", "changes.jpg", "retouched.csv"])
def test_a_file_that_no_earlier_run_made_is_not_replaced(tmp_path: Path, name: str) -> None:
    folder, out = files(tmp_path / "photos", "a.jpg"), files(tmp_path / "out", name)
    with pytest.raises(OutputError, match=rf"{name} was not made by gaip3 retouch.*--out"):
        find_photographs(folder, out)


def test_an_output_folder_with_photographs_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = files(tmp_path / "photos", "a.jpg", "b/c.jpg")
    with pytest.raises(OutputError, match=r"c\.jpg was not made by gaip3 retouch"):
        find_photographs(folder, folder / "b")


def test_the_results_of_another_folder_are_not_replaced(tmp_path: Path) -> None:
    folder = files(tmp_path / "photos", "a.jpg")
    results(tmp_path / "out", ("a.jpg", "a.jpg"), folder=tmp_path / "others")
    with pytest.raises(OutputError, match=r"holds the results of .*others: choose another"):
        find_photographs(folder, tmp_path / "out")
    results(tmp_path / "out", ("a.jpg", "a.jpg"), folder=folder)
    assert len(find_photographs(folder, tmp_path / "out").earlier) == 1
    before = pd.read_csv(tmp_path / "out/retouched.csv").drop(columns="folder")
    before.to_csv(tmp_path / "out/retouched.csv", index=False)  # of an older version
    assert len(find_photographs(folder, tmp_path / "out").earlier) == 1


@pytest.mark.parametrize(
    "saved",
    [
        lambda text: ("\ufeff" + text).encode(),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", "\t").encode("utf-16"),
    ],
    ids=["bom", "semicolons", "utf-16"],
)
def test_results_whose_table_a_spreadsheet_saved_are_no_photographs(
    tmp_path: Path, saved: Callable[[str], bytes]
) -> None:
    folder = files(tmp_path / "in", "a.jpg")
    results(folder / "res", ("a.jpg", "a.jpg"), folder=folder)
    table = folder / "res" / "retouched.csv"
    table.write_bytes(saved(table.read_text(encoding="utf-8")))
    assert list(find_photographs(folder, tmp_path / "out").pictures) == [folder / "a.jpg"]
    again = find_photographs(folder, folder / "res")
    assert again.earlier.picture.tolist() == ["a.jpg"]


def test_a_table_in_another_encoding_is_one_line(tmp_path: Path) -> None:
    folder, out = files(tmp_path / "in", "a.jpg"), tmp_path / "out"
    results(out, ("사진.png", "사진.png.jpg"), folder=folder)
    table = out / "retouched.csv"
    table.write_bytes(table.read_text(encoding="utf-8").encode("cp949"))
    with pytest.raises(ContractError, match=r"retouched\.csv.*UTF-8") as raised:
        find_photographs(folder, out)
    assert "\n" not in str(raised.value)
