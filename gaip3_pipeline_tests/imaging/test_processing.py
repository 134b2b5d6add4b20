"""The processed sets: complete, resumable, and never written in place."""

import os
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gaip3_pipeline import checks
from gaip3_pipeline.assets import labels
from gaip3_pipeline.imaging.processing import MissingSource, augment_set, resize_set
from gaip3_pipeline.imaging.transform import brightness_ratio
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot, ImageSet
from gaip3_pipeline.settings import Images
from gaip3_pipeline.tables.image_files import LEFT_OUT, DuplicateStems
from gaip3_pipeline_tests.imaging.pictures import fill, jpeg, photograph

D1, FEMALE, _ = IMAGE_SETS
SETTINGS = Images(max_pixels=4_000_000)


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return DataRoot(tmp_path / "a root 자료")


def state(
    root: DataRoot, kind: str = "resized", image_set: ImageSet = D1
) -> dict[str, tuple[int, int]]:
    """Inode and mtime of every file of a set."""
    return {
        p.name: (p.stat().st_ino, p.stat().st_mtime_ns)
        for p in root.processed(kind, image_set).iterdir()
    }


def test_every_original_becomes_one_picture_of_the_contract_and_one_brightness_copy(
    root: DataRoot,
) -> None:
    originals = fill(root, D1, 3)
    resized, augmented = resize_set(root, D1, SETTINGS), augment_set(root, D1, SETTINGS)
    assert (resized.done, augmented.done, resized.unusable, augmented.unusable) == (3, 3, 0, 0)
    assert list(resized.manifest.path) == [f"resized/10k-images/p{i}.jpg" for i in range(3)]
    assert (resized.manifest.status == "ok").all()
    for original in originals:
        x = np.asarray(Image.open(root.processed("resized", D1) / original.name)).astype(float)
        y = np.asarray(Image.open(root.processed("augmented", D1) / original.name)).astype(float)
        image = Image.open(original)
        want = image.crop((24, 0, 232, 256)).resize((104, 128), Image.Resampling.BOX)
        r = brightness_ratio(original.stem)
        assert np.abs(x - np.asarray(want)).mean() < 2
        assert np.abs(y - (x * r if r < 1 else x * (2 - r) + 255 * (r - 1))).mean() < 2


def test_names_with_spaces_korean_and_emoji_and_folders_inside_folders_are_kept(
    root: DataRoot,
) -> None:
    folder = root.original(FEMALE)
    names = ["a b.JPG", "얼굴 1.jpeg", "😀.PNG", "deeper/deepest/c.d.webp", "deeper/e.jpg"]
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photograph(i, 128).save(folder / name)
    for ignored in (".hidden.jpg", "__MACOSX/._a b.jpg", ".cache/x.jpg", "@eaDir/a b.JPG/t.jpg"):
        (folder / ignored).parent.mkdir(parents=True, exist_ok=True)
        (folder / ignored).write_bytes(b"not a picture")
    result = resize_set(root, FEMALE, SETTINGS)
    assert result.unusable == 0
    assert [Path(p).stem for p in result.manifest.path] == sorted(
        ["a b", "얼굴 1", "😀", "c.d", "e"]
    )
    assert list(state(augmented_of(root, FEMALE), "augmented", FEMALE)) != []
    assert state(root, "resized", FEMALE).keys() == state(root, "augmented", FEMALE).keys()


def augmented_of(root: DataRoot, image_set: ImageSet) -> DataRoot:
    augment_set(root, image_set, SETTINGS)
    return root


def test_two_originals_of_one_stem_are_an_error_that_names_both(root: DataRoot) -> None:
    fill(root, D1, 2)
    (root.original(D1) / "in").mkdir()
    photograph(0, 64).save(root.original(D1) / "in" / "p1.png")
    with pytest.raises(DuplicateStems, match=r"p1\.jpg.*p1\.png|p1\.png.*p1\.jpg"):
        resize_set(root, D1, SETTINGS)


def test_unusable_originals_are_listed_with_their_reason_in_both_manifests(root: DataRoot) -> None:
    fill(root, D1, 2)
    folder = root.original(D1)
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("no picture")
    (folder / "cut.jpg").write_bytes(jpeg(photograph(0))[:-900])
    (folder / "huge.jpg").write_bytes(jpeg(Image.new("RGB", (3000, 2000))))
    (folder / "gone.jpg").symlink_to(folder / "nowhere")
    photograph(1, 128).save(folder / "png.jpg", "PNG")
    with open(os.fsencode(folder) + b"/\xff\xfe.jpg", "wb") as f:
        f.write(jpeg(photograph(0)))
    result = resize_set(root, D1, SETTINGS)
    assert (result.done, result.unusable) == (3, 6)
    rows = (
        pd.read_parquet(root.manifest("resized_d1"))
        .assign(stem=lambda t: [Path(p).stem for p in t.path])
        .set_index("stem")
    )
    assert len(rows) == 9
    assert rows.loc["png", ["status", "reason"]].tolist() == ["ok_with_note", "PNG named .jpg"]
    reasons = {
        stem: rows.reason[stem].split(":")[0] for stem in rows.index[rows.status == "unusable"]
    }
    assert reasons == {
        "empty": "empty file",
        "text": "not a JPEG, PNG, WebP, BMP, TIFF or AVIF picture (it begins with “no pictu”)",
        "cut": "truncated",
        "huge": "too large",
        "gone": "cannot be read",
        "\\xff\\xfe": "the file name is not valid UTF-8",
    }
    copies = augment_set(root, D1, SETTINGS)
    assert copies.unusable == 6
    assert sorted(copies.manifest.reason[copies.manifest.status == "unusable"]) == sorted(
        rows.reason[rows.status == "unusable"]
    )
    before = state(root)
    again = resize_set(root, D1, SETTINGS)
    assert (again.done, again.reused, again.unusable) == (0, 3, 6)
    assert state(root) == before


def test_every_file_beside_the_originals_has_a_row_and_only_photographs_count_as_unusable(
    root: DataRoot,
) -> None:
    folder = fill(root, D1, 2)[0].parent
    names = ["p0.jpg.json", "p0.json", "more/p0.json", "p0.jpg.jpg.csv", "p1.heic", "q.heic"]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"{}")
    os.mkfifo(folder / "pipe.jpg")
    for result in (resize_set(root, D1, SETTINGS), augment_set(root, D1, SETTINGS)):
        assert (result.done, result.unusable, result.left_out) == (2, 2, 5)
        table = result.manifest
        assert table.path.is_unique
        assert len(table) == 9
        reasons = dict(zip(table.source.map(os.path.basename), table.reason, strict=True))
        assert reasons["q.heic"].startswith("HEIC pictures are not read: convert it to")
        assert reasons["p1.heic"].startswith(f"{LEFT_OUT}p1.jpg is used instead")
        assert reasons["pipe.jpg"] == "not a file but a pipe, socket or device"
        assert all(reasons[name].startswith(LEFT_OUT) for name in reasons if "json" in name)
    figures = {"images": 98, "unusable": 2, "left_out": 100}
    passed, said = checks._usable(0.05)(root, figures)
    assert passed
    assert said == "98 images, 2 unusable (2.0%, at most 5%), 100 other files left out"
    again = resize_set(root, D1, SETTINGS)
    assert (again.done, again.reused, len(again.manifest)) == (0, 2, 9)


def test_without_a_readable_original_the_others_are_named(root: DataRoot) -> None:
    root.original(D1).mkdir(parents=True)
    (root.original(D1) / "a.heic").touch()
    with pytest.raises(MissingSource, match=r"1 cannot, such as a\.heic \(HEIC pictures are"):
        resize_set(root, D1, SETTINGS)


def test_an_original_in_nfd_is_processed_under_its_name_in_nfc(root: DataRoot) -> None:
    [original] = fill(root, D1, 1)
    nfc, nfd = (unicodedata.normalize(form, "é가") for form in ("NFC", "NFD"))
    original.rename(original.with_name(f"{nfd}.jpg"))
    old = root.processed("resized", D1) / f"{nfd}.jpg"  # as roots of before have it
    old.parent.mkdir(parents=True)
    old.write_bytes(b"of before")
    resized, augmented = resize_set(root, D1, SETTINGS), augment_set(root, D1, SETTINGS)
    assert list(state(root)) == list(state(root, "augmented")) == [f"{nfc}.jpg"]
    assert resized.manifest.path.tolist() == [f"resized/10k-images/{nfc}.jpg"]
    assert (root.path / resized.manifest.source[0]).name == f"{nfd}.jpg"
    copy = np.asarray(Image.open(root.path / augmented.manifest.path[0])).mean()
    share = copy / np.asarray(Image.open(root.path / resized.manifest.path[0])).mean()
    assert (share < 1) == (brightness_ratio(nfc) < 1)


@pytest.mark.parametrize(
    ("image_set", "longest"), [(D1, 230), (FEMALE, 234)], ids=["d1", "d2_female"]
)
def test_a_name_too_long_for_final_is_refused_with_its_limit(
    root: DataRoot, image_set: ImageSet, longest: int
) -> None:
    one, other, third = fill(root, image_set, 3)
    one.rename(one.with_name("a" * longest + ".jpg"))
    other.rename(other.with_name("가" * (longest // 3 + 1) + ".jpg"))
    third.rename(third.with_name("b\\c.jpg"))
    result = resize_set(root, image_set, SETTINGS)
    assert (result.done, result.unusable) == (1, 2)
    names_and_reasons = result.manifest.path, result.manifest.reason
    by_first = {Path(p).name[0]: r for p, r in zip(*names_and_reasons, strict=True)}
    assert by_first["a"] == ""
    assert by_first["가"].startswith("the file name is too long: ")
    assert by_first["가"].endswith(
        f"names made from it may have 255; shorten it by {3 * (longest // 3 + 1) - longest} bytes"
    )
    assert by_first["b"].startswith("the name has a backslash")


def test_entries_that_the_pipeline_did_not_make_stay_and_are_named(root: DataRoot) -> None:
    original = fill(root, D1, 1)[0]
    resize_set(root, D1, SETTINGS)
    folder = root.processed("resized", D1)
    (folder / "folder.jpg").mkdir()
    (folder / "link.jpg").symlink_to(original)
    for name in (".DS_Store", "notes.txt"):
        (folder / name).touch()
    result = resize_set(root, D1, SETTINGS)
    assert result.foreign == (".DS_Store", "folder.jpg", "link.jpg", "notes.txt")
    assert result.removed == 0
    assert sorted(state(root)) == [*result.foreign, "p0.jpg"]


def test_an_entry_that_the_pipeline_did_not_make_takes_no_label(root: DataRoot) -> None:
    fill(root, FEMALE, 1)
    resize_set(root, FEMALE, SETTINGS)
    (root.processed("resized", FEMALE) / "folder.jpg").mkdir()
    path = root.hand_labels("eyes")
    path.parent.mkdir()
    path.write_text("gender,img_id,path,value\nfemale,0,p0.jpg,1\nfemale,1,folder.jpg,1\n")
    found = labels.read(root, "eyes")
    assert found.table.stem.tolist() == ["p0"]
    assert found.left_out == ["line 3: there is no image folder in the female originals"]


def test_a_folder_in_the_place_of_a_picture_is_named(root: DataRoot) -> None:
    fill(root, D1, 1)
    (root.processed("resized", D1) / "p0.jpg").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"p0\.jpg is a folder.*: move it away"):
        resize_set(root, D1, SETTINGS)


@pytest.mark.parametrize("name", ["more", "more.jpg"])
def test_a_link_from_the_originals_to_the_output_is_refused(root: DataRoot, name: str) -> None:
    fill(root, D1, 2)
    resize_set(root, D1, SETTINGS)
    before = state(root)
    output = root.processed("resized", D1)
    target = output if name == "more" else output / "p0.jpg"
    for original in root.original(D1).iterdir():
        original.unlink()
    (root.original(D1) / name).symlink_to(target)
    with pytest.raises(ValueError, match="a link leads from one to the other"):
        resize_set(root, D1, SETTINGS)
    assert state(root) == before


def test_nothing_changed_means_nothing_written(root: DataRoot) -> None:
    fill(root, D1, 4)
    first = [resize_set(root, D1, SETTINGS), augment_set(root, D1, SETTINGS)]
    kept = [state(root), state(root, "augmented"), root.manifest("resized_d1").stat().st_mtime_ns]
    second = [resize_set(root, D1, SETTINGS), augment_set(root, D1, SETTINGS)]
    assert [(r.done, r.reused, r.removed) for r in second] == [(0, 4, 0)] * 2
    assert [
        state(root),
        state(root, "augmented"),
        root.manifest("resized_d1").stat().st_mtime_ns,
    ] == kept
    assert [r.version for r in first] == [r.version for r in second]
    assert not root.journal("resized_d1").exists()


def test_only_the_changed_original_is_done_again_and_linked_files_keep_their_content(
    root: DataRoot,
) -> None:
    originals = fill(root, D1, 3)
    version = resize_set(root, D1, SETTINGS).version
    linked = root.path / "final.jpg"
    os.link(root.processed("resized", D1) / "p1.jpg", linked)
    before, content = state(root), linked.read_bytes()
    originals[1].write_bytes(jpeg(photograph(99)))
    result = resize_set(root, D1, SETTINGS)
    assert (result.done, result.reused) == (1, 2)
    assert result.version != version
    assert linked.read_bytes() == content
    assert {n for n, s in state(root).items() if s != before[n]} == {"p1.jpg"}
    assert state(root)["p1.jpg"][0] != before["p1.jpg"][0]


def test_an_original_that_was_only_touched_is_not_decoded_again(root: DataRoot) -> None:
    originals = fill(root, D1, 2)
    resize_set(root, D1, SETTINGS)
    before = state(root)
    os.utime(originals[0], ns=(1, 1))
    assert resize_set(root, D1, SETTINGS).done == 0
    assert state(root) == before


def test_a_picture_that_was_lost_or_spoilt_is_made_again(root: DataRoot) -> None:
    fill(root, D1, 3)
    version = resize_set(root, D1, SETTINGS).version
    (root.processed("resized", D1) / "p0.jpg").unlink()
    spoilt = root.processed("resized", D1) / "p1.jpg"
    spoilt.write_bytes(b"x" * spoilt.stat().st_size)
    result = resize_set(root, D1, SETTINGS)
    assert (result.done, result.reused, result.version) == (2, 1, version)


def test_other_settings_redo_all(root: DataRoot) -> None:
    fill(root, D1, 2)
    resize_set(root, D1, SETTINGS)
    assert resize_set(root, D1, Images(max_pixels=4_000_000, jpeg_quality=80)).done == 2


def test_pictures_without_an_original_are_removed_and_originals_never_are(root: DataRoot) -> None:
    originals = fill(root, D1, 3)
    resize_set(root, D1, SETTINGS)
    augment_set(root, D1, SETTINGS)
    originals[0].unlink()
    originals[1].write_bytes(b"spoilt")
    (root.processed("resized", D1) / "stranger.png").write_bytes(b"")
    assert resize_set(root, D1, SETTINGS).removed == 2
    assert augment_set(root, D1, SETTINGS).removed == 2
    assert list(state(root)) == list(state(root, "augmented")) == ["p2.jpg"]
    assert sorted(p.name for p in root.original(D1).iterdir()) == ["p1.jpg", "p2.jpg"]


@pytest.mark.parametrize("exists", [True, False])
def test_without_originals_nothing_is_removed_and_the_remedy_is_named(
    root: DataRoot, exists: bool
) -> None:
    for path in fill(root, D1, 2):
        resize_set(root, D1, SETTINGS)
        path.unlink()
    before = state(root)
    if not exists:
        root.original(D1).rmdir()
    with pytest.raises(MissingSource, match="gaip3 fetch"):
        resize_set(root, D1, SETTINGS)
    assert state(root) == before


def test_brightness_copies_need_the_resized_pictures_first(root: DataRoot) -> None:
    with pytest.raises(MissingSource, match="make resized_d1 first"):
        augment_set(root, D1, SETTINGS)


def test_an_output_folder_that_leads_to_the_originals_is_refused(root: DataRoot) -> None:
    fill(root, D1, 2)
    root.processed("resized", D1).parent.mkdir(parents=True)
    root.processed("resized", D1).symlink_to(root.original(D1))
    with pytest.raises(ValueError, match="same place"):
        resize_set(root, D1, SETTINGS)
    assert len(list(root.original(D1).iterdir())) == 2


def test_progress_counts_up_to_all(root: DataRoot) -> None:
    fill(root, D1, 3)
    seen: list[tuple[int, int]] = []
    resize_set(root, D1, SETTINGS, lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_after_kill_9_only_the_missing_pictures_are_made(root: DataRoot) -> None:
    # progress stops the run once 20 of 60 are done, so that it is killed in the middle on any
    # machine
    fill(root, D1, 60)
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom gaip3_pipeline.imaging.processing import"
        " resize_set\nfrom gaip3_pipeline.layout import IMAGE_SETS, DataRoot\nfrom"
        " gaip3_pipeline.settings import Images\ndef progress(done, total):\n    if done == 20:\n  "
        "      print('ready', flush=True)\n       "
        " time.sleep(600)\nresize_set(DataRoot(Path(sys.argv[1])), IMAGE_SETS[0],"
        " Images(max_pixels=4_000_000), progress)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", script, str(root.path)], stdout=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    before = state(root)
    assert not root.manifest("resized_d1").exists()
    with root.journal("resized_d1").open("a") as journal:
        journal.write('{"path": "resized/10k-im')  # a torn line
    (root.processed("resized", D1) / ".writing-left.jpg").write_bytes(b"half")
    result = resize_set(root, D1, SETTINGS)
    after = state(root)
    assert result.reused >= 20
    assert result.done + result.reused == len(after) == 60
    assert {name: after[name] for name in before} == before
    assert not root.journal("resized_d1").exists()


def test_a_journal_of_other_settings_is_ignored(root: DataRoot) -> None:
    fill(root, D1, 3)
    resize_set(root, D1, SETTINGS)
    root.journal("resized_d1").write_text('{"fingerprint": "other"}\n')
    root.manifest("resized_d1").unlink()
    assert resize_set(root, D1, SETTINGS).done == 3
