"""The files of a folder of photographs: which are pictures, and the reason of each other file."""

import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from gaip3_pipeline.layout import IMAGE_SUFFIXES
from gaip3_pipeline.tables.hashing import content_version, file_sha256, folder_version
from gaip3_pipeline.tables.image_files import (
    LEFT_OUT,
    DuplicateStems,
    by_stem,
    list_folder,
    list_images,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return files(tmp_path / "photos 사진", "a.jpg", "b/c.png")


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def listed(folder: Path) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in list_images(folder)]


def unused(folder: Path) -> dict[str, str]:
    return {o.path.relative_to(folder).as_posix(): o.reason for o in list_folder(folder).unused()}


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, ".JFIF", ".Tiff"])
def test_each_suffix_of_the_contract_is_a_picture_in_any_case(tmp_path: Path, suffix: str) -> None:
    assert listed(files(tmp_path, f"a{suffix}")) == [f"a{suffix}"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x.gif", "GIF pictures are not read: convert it to JPEG or PNG"),
        ("x.HEIC", "HEIC pictures are not read: convert it to JPEG or PNG"),
        ("x.cr2", "camera RAW pictures are not read: convert it to JPEG or PNG"),
        ("x.svg", ".svg pictures are not read: convert it to JPEG or PNG"),
    ],
)
def test_a_picture_of_another_format_has_the_format_and_the_remedy(
    folder: Path, name: str, said: str
) -> None:
    assert unused(files(folder, name)) == {name: said}


@pytest.mark.parametrize("name", ["a.json", "notes.txt", "b/x.xmp", "x.csv", "README", "x.mov"])
def test_a_file_that_is_no_picture_is_left_out_with_its_reason(folder: Path, name: str) -> None:
    [(found, said)] = unused(files(folder, name)).items()
    assert found == name
    assert said.startswith(LEFT_OUT)
    assert "not a picture" in said


def test_a_picture_without_a_known_suffix_is_recognised_by_its_content(folder: Path) -> None:
    for name in ("photo", "photo.jpg_large"):
        Image.new("RGB", (8, 8)).save(folder / name, "JPEG")
    assert unused(folder) == {
        "photo": "a JPEG picture with no suffix: name it photo.jpg",
        "photo.jpg_large": "a JPEG picture with the suffix .jpg_large: name it photo.jpg_large.jpg",
    }


NAMES_WITH_DOTS = (
    "2024.05.06",
    "2024.05.07",
    "John H. Smith",
    "WhatsApp Image 2024-05-06 at 10.11.12 AM",
    "Kim.Minjung",
    "Kim.민정",
)


def test_the_end_of_a_name_is_no_suffix_and_no_two_pictures_are_to_get_one_name(
    folder: Path,
) -> None:
    files(folder, "2024.05.jpg", "John H.jpg", "Kim.jpg")
    for name in (*NAMES_WITH_DOTS, "face.bin", "face.dat"):
        Image.new("RGB", (8, 8)).save(folder / name, "JPEG")
    said = unused(folder)
    for name in NAMES_WITH_DOTS:
        assert said.pop(name) == f"a JPEG picture with no suffix: name it {name}.jpg"
    assert said == {
        f"face{s}": f"a JPEG picture with the suffix {s}: name it face{s}.jpg"
        for s in (".bin", ".dat")
    }
    files(folder, "face.bin.jpg")
    assert unused(folder)["face.bin"].startswith(f"{LEFT_OUT}face.bin.jpg is used instead (")


@pytest.mark.parametrize("name", ["index.html", "x.txt", "x.pdf", "x.json", "x.heic", "x.svg"])
@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        ("JPEG", ".jpg"),
        ("PNG", ".png"),
        ("WEBP", ".webp"),
        ("AVIF", ".avif"),
        ("TIFF", ".tif"),
        ("BMP", ".bmp"),
    ],
)
def test_a_picture_with_the_suffix_of_another_kind_is_recognised_by_its_content(
    folder: Path, name: str, form: str, suffix: str
) -> None:
    Image.new("RGB", (8, 8)).save(folder / name, form)
    given = os.path.splitext(name)[1]
    said = f"a {form} picture with the suffix {given}: name it {name}{suffix}"
    assert unused(folder) == {name: said}


@pytest.mark.parametrize(
    ("start", "form"),
    [(b"GIF89a", "GIF"), (b"\0\0\0\x18ftypheic", "HEIC"), (b"\xff\x0a", "JPEG XL")],
)
@pytest.mark.parametrize("name", ["photo", "x.php", "index.html"])
def test_a_picture_of_another_format_without_its_suffix_is_counted(
    folder: Path, name: str, start: bytes, form: str
) -> None:
    (folder / name).write_bytes(start + bytes(50))
    assert unused(folder)[name].startswith(f"a {form} picture with ")


def test_texts_and_data_are_not_taken_for_pictures(folder: Path) -> None:
    contents = {
        "index.html": b"<!DOCTYPE html>",
        "bm.txt": b"BMW and other words, more than the header of a bitmap has" * 3,
        "features": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "portable.txt": b"P3\n1 1\n255\n0 0 0\n",
        "2024.06.07": b"a day",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    assert all(s.startswith(f"{LEFT_OUT}not a picture") for s in unused(folder).values())
    assert unused(folder).keys() == contents.keys()


@pytest.mark.parametrize("name", ["a.heic", "a.CR2", "a.jpg_original", "a.jpg.bak"])
def test_another_format_of_a_picture_that_is_used_is_left_out(folder: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(folder / name, "JPEG")
    [said] = unused(folder).values()
    assert said.startswith(f"{LEFT_OUT}a.jpg is used instead (")


def test_hidden_and_system_files_are_left_out_by_name(folder: Path) -> None:
    names = (
        ".DS_Store",
        "._a.jpg",
        ".ipynb_checkpoints/a-checkpoint.jpg",
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/b/._c.png",
        "#recycle/old.jpg",
        "$RECYCLE.BIN/old.jpg",
        "System Volume Information/x.jpg",
        "b/lost+found/x.jpg",
        "b/Thumbs.db",
        "desktop.ini",
    )
    files(folder, *names)
    assert listed(folder) == ["a.jpg", "b/c.png"]
    assert unused(folder) == {}


def test_links_to_folders_and_files_elsewhere_are_followed(folder: Path, tmp_path: Path) -> None:
    other = files(tmp_path / "disk", "x.jpg", "in/y.jpg")
    (folder / "linked").symlink_to(other)
    (folder / "z.jpg").symlink_to(files(tmp_path / "more", "q.jpg") / "q.jpg")
    assert listed(folder) == ["a.jpg", "b/c.png", "linked/x.jpg", "linked/in/y.jpg", "z.jpg"]
    assert unused(folder) == {}


def test_what_links_reach_again_is_named_and_counted_once(folder: Path) -> None:
    (folder / "0 again").symlink_to(folder / "b")
    (folder / "b/loop").symlink_to(folder)
    (folder / "b/up").symlink_to("../..")
    (folder / "itself").symlink_to("itself")
    (folder / "same.jpg").symlink_to("a.jpg")
    (folder / "gone").symlink_to("nowhere")
    assert listed(folder) == ["a.jpg", "b/c.png"]
    assert unused(folder) == {
        "0 again": f"{LEFT_OUT}the same folder as b",
        "b/loop": f"{LEFT_OUT}the same folder as .",
        "b/up": f"{LEFT_OUT}a link to ../.., which contains this folder",
        "gone": "a broken link to nowhere",
        "itself": "a broken link to itself",
        "same.jpg": f"{LEFT_OUT}a link to a.jpg, which is listed",
    }


def test_two_linked_folders_with_one_inside_the_other_are_listed_once(
    folder: Path, tmp_path: Path
) -> None:
    other = files(tmp_path / "disk", "x.jpg", "in/y.jpg")
    (folder / "inner").symlink_to(other / "in")
    (folder / "outer").symlink_to(other)
    assert listed(folder) == ["a.jpg", "b/c.png", "outer/x.jpg", "inner/y.jpg"]
    assert unused(folder) == {"outer/in": f"{LEFT_OUT}the same folder as inner"}


def test_a_pipe_is_not_waited_for(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.jpg")
    assert unused(folder) == {"pipe": f"{LEFT_OUT}not a file but a pipe, socket or device"}
    assert folder_version(folder, tmp_path / "cache").files == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "b").chmod(0)
    try:
        assert listed(folder) == ["a.jpg"]
        said = "cannot be read (Permission denied): make it readable, or move it away"
        assert unused(folder) == {"b": said}
    finally:
        (folder / "b").chmod(0o755)


def test_the_version_changes_with_other_files_and_not_with_hidden_ones(
    folder: Path, tmp_path: Path
) -> None:
    def version() -> str:
        return folder_version(folder, tmp_path / "cache").hash

    rows = [(n, len(n), file_sha256(folder / n)) for n in ("a.jpg", "b/c.png")]
    before = version()
    assert before == content_version(rows)  # as in roots that exist
    files(folder, ".DS_Store", "@eaDir/x.jpg")
    assert version() == before
    versions = {before}
    for name in ("x.heic", "a.json", "c.jfif"):
        versions.add(folder_version(files(folder, name), tmp_path / "cache").hash)
    (folder / "gone").symlink_to("nowhere")
    versions.add(version())
    assert len(versions) == 5


def test_two_unicode_spellings_of_a_name_are_one_stem_and_the_error_shows_the_difference(
    folder: Path, tmp_path: Path
) -> None:
    spellings = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    [nfd] = files(folder, spellings[1]).glob("e*.jpg")
    before = folder_version(folder, tmp_path / "cache").hash
    assert by_stem(list_images(folder))["\xe9"] == nfd
    sha = file_sha256(folder / spellings[1])
    with_nfd = [(n, len(n.encode()), file_sha256(folder / n)) for n in ("a.jpg", "b/c.png")]
    # pictures of before, which have the other spelling, are made again
    assert before != content_version([*with_nfd, (nfd.name, len(nfd.name.encode()), sha)])
    files(folder, spellings[0])
    with pytest.raises(DuplicateStems, match=r"two Unicode spellings.*'e\\u0301\.jpg'") as e:
        by_stem(list_images(folder))
    assert r"'\xe9.jpg'" in str(e.value)
    assert by_stem([Path("A.jpg"), Path("a.jpg")]).keys() == {"A", "a"}
