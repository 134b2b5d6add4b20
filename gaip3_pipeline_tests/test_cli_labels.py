"""``gaip3 import-labels`` and ``export-labels`` as a user types them."""

import json

import pytest

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.tables.label_store import LabelStore

HEAD = "gender,img_id,path,value\n"


@pytest.fixture
def root(tmp_path) -> DataRoot:
    """A root of six originals and labels of the mouth; the pictures are not opened here."""
    root = DataRoot(tmp_path / "얼굴 data")
    for image_set in IMAGE_SETS[1:]:
        root.original(image_set).mkdir(parents=True)
        for name in ("both.jpg", f"{image_set.sex} 1.PNG", f"{image_set.sex},이름.jpg"):
            (root.original(image_set) / name).touch()
    root.hand_labels("mouth").parent.mkdir()
    text = (
        "remark,gender,img_id,path,value\nx,female,0,resized/both.png,0.50\n"
        ',male,7,"dataset/resized/male,이름.png",1\n'
    )
    root.hand_labels("mouth").write_bytes(text.encode())
    return root


@pytest.fixture
def labels_of(root):
    """The content of the files in ``labels/``."""
    return lambda: {p.name: p.read_bytes() for p in root.hand_labels("mouth").parent.iterdir()}


def test_an_import_reports_its_changes_and_the_history_keeps_the_old_values(gaip3, root, tmp_path):
    (tmp_path / "new.csv").write_text(
        "file,mouth,head\nfemale 1.png,0.25,0\nmale/both.jpg,0,\nfemale/both.jpg,1,\ngone.jpg,1,1\n"
    )
    done = gaip3("import-labels", tmp_path / "new.csv", "--root", root.path)
    assert done.exit_code == 0, done.output
    assert "  mouth: 2 new, 1 changed, 0 equal, 1 left out (no such image: gone)\n" in done.output
    assert "  head: 1 new, 0 changed, 0 equal, 1 left out (no such image: gone)\n" in done.output
    assert LabelStore(root).values("head") == {("female", "female 1"): 0.0}
    changed = LabelStore(root).history("mouth", "female", "both")[-1]
    assert (changed.who, changed.before, changed.after) == ("import new.csv", 0.5, 1.0)
    assert (
        root.hand_labels("mouth").read_text(encoding="utf-8").splitlines()[0]
        == "remark,gender,img_id,path,value"
    )
    again = gaip3("import-labels", tmp_path / "new.csv", "--root", root.path)
    assert "  mouth: 0 new, 0 changed, 3 equal, 1 left out" in again.output
    assert len(LabelStore(root).history("mouth")) == 3


def test_a_dry_run_of_an_import_prints_the_same_and_writes_nothing(
    gaip3, root, tmp_path, labels_of
):
    (tmp_path / "1.csv").write_text("file,value\nfemale 1.png,0.25\n")
    (tmp_path / "2.csv").write_text("file,value\nfemale 1.png,0.75\n")
    words = (
        "import-labels",
        tmp_path / "1.csv",
        tmp_path / "2.csv",
        "--attribute",
        "mouth",
        "--root",
        root.path,
    )
    before = labels_of()
    dry = gaip3(*words, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert labels_of() == before
    assert gaip3(*words).output == dry.output
    assert "mouth: 1 new, 0 changed, 0 equal" in dry.output
    assert "mouth: 0 new, 1 changed, 0 equal" in dry.output
    assert LabelStore(root).values("mouth")["female", "female 1"] == 0.75


def test_one_file_that_cannot_be_used_keeps_all_of_them_out(gaip3, root, tmp_path, labels_of):
    (tmp_path / "good.csv").write_text("file,mouth\nfemale 1.png,0.25\n")
    (tmp_path / "bad.csv").write_text(
        "file,mouth\nmale 1.png,0.25\nboth.jpg,0.25\nmale 1.png,wide\n"
    )
    before = labels_of()
    done = gaip3("import-labels", tmp_path / "good.csv", tmp_path / "bad.csv", "--root", root.path)
    assert done.exit_code != 0
    assert labels_of() == before
    assert "bad.csv, line 3: both.jpg may be female both or male both" in done.output
    assert "bad.csv, line 4: mouth is 'wide'; it must be 0 to 1" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("form", ["plain", "label-studio", "label-studio-csv"])
def test_an_export_into_an_empty_root_and_back_gives_equal_labels(gaip3, root, tmp_path, form):
    before = LabelStore(root).values("mouth")
    assert gaip3("export-labels", form, tmp_path / "out", "--root", root.path).exit_code == 0
    root.hand_labels("mouth").unlink()
    done = gaip3("import-labels", tmp_path / "out", "--attribute", "mouth", "--root", root.path)
    assert "mouth: 2 new, 0 changed, 0 equal\n" in done.output
    assert LabelStore(root).values("mouth") == before


def test_the_csv_export_is_the_file_byte_for_byte(gaip3, root, tmp_path):
    (tmp_path / "eyes.csv").write_text("file,eyes\nmale 1.PNG,1\n")
    gaip3("import-labels", tmp_path / "eyes.csv", "--root", root.path)
    assert gaip3("export-labels", "csv", tmp_path / "out", "--root", root.path).exit_code == 0
    assert (
        gaip3(
            "export-labels", "csv", tmp_path / "m.csv", "--attribute", "mouth", "--root", root.path
        ).exit_code
        == 0
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "train_output_eyes.csv",
        "train_output_mouth.csv",
    ]
    for path in (tmp_path / "out" / "train_output_mouth.csv", tmp_path / "m.csv"):
        assert path.read_bytes() == root.hand_labels("mouth").read_bytes()
    several = gaip3("export-labels", "csv", tmp_path / "all.csv", "--root", root.path)
    assert several.exit_code != 0
    assert "give a folder, or one attribute with --attribute" in several.output


def test_an_export_leaves_out_labels_without_an_image_and_reports_it(gaip3, root, tmp_path):
    (root.original(IMAGE_SETS[2]) / "male,이름.jpg").unlink()
    done = gaip3("export-labels", "plain", tmp_path / "m.csv", "--root", root.path)
    assert "1 labels of mouth, 1 left out (no such image)" in done.output
    assert (
        tmp_path / "m.csv"
    ).read_text() == "file,value\noriginal/ThisPersonDoesNotExist/Female/both.jpg,0.5\n"


def test_an_export_without_labels_is_an_error(gaip3, root, tmp_path):
    done = gaip3(
        "export-labels", "plain", tmp_path / "e.csv", "--attribute", "eyes", "--root", root.path
    )
    assert done.exit_code != 0
    assert "there are no labels of eyes" in done.output
    assert not (tmp_path / "e.csv").exists()


def test_a_label_studio_project_gets_its_configuration_and_every_image(gaip3, root, tmp_path):
    assert (
        gaip3(
            "export-labels", "label-studio-config", tmp_path / "config.xml", "--root", root.path
        ).exit_code
        == 0
    )
    config = (tmp_path / "config.xml").read_text(encoding="utf-8")
    assert all(f'<Number name="{a}" toName="image"' in config for a in ATTRIBUTES)
    assert (
        gaip3(
            "export-labels", "label-studio", tmp_path / "tasks.json", "--root", root.path
        ).exit_code
        == 0
    )
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    assert [len(t["annotations"]) for t in tasks] == [1, 0, 0, 0, 0, 1]


def test_two_originals_of_one_name_are_one_line_without_a_traceback(gaip3, root, tmp_path):
    (root.original(IMAGE_SETS[1]) / "both.png").touch()
    done = gaip3("export-labels", "plain", tmp_path / "m.csv", "--root", root.path)
    assert done.exit_code != 0
    assert "two originals are called 'both'" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("form", ["plain", "label-studio", "label-studio-config"])
def test_an_export_into_a_folder_asks_for_the_name_of_a_file(gaip3, root, tmp_path, form):
    done = gaip3("export-labels", form, tmp_path, "--root", root.path)
    assert done.exit_code == 1
    assert done.output == f"Error: {tmp_path} is a folder: give the name of a file in it\n"


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (("export-labels", "plain", "--attribute", "mouth"), "labels/train_output_mouth.csv"),
        (("export-labels", "label-studio-config"), "original/a.jpg"),
        (("export-labels", "label-studio"), "gaip3.toml"),
        (("generate", "--out"), "original/a.png"),
        (("retouch", "{folder}", "--out"), "original/a"),
    ],
)
def test_no_result_is_written_over_a_file_of_the_root_or_among_its_photographs(
    gaip3, root, tmp_path, words, out
):
    root.settings_file.write_text('preset = "tiny"\n')
    before = {p: p.read_bytes() for p in root.path.rglob("*") if p.is_file()}
    given = [str(tmp_path) if word == "{folder}" else word for word in words]
    done = gaip3(*given, root.path / out, "--root", root.path)
    assert done.exit_code == 1
    assert f"is a place of the data root {root.path} itself" in done.output
    assert {p: p.read_bytes() for p in root.path.rglob("*") if p.is_file()} == before


def test_a_refusal_quotes_little_of_a_file_and_no_control_character(gaip3, root, tmp_path):
    odd = tmp_path / "odd.csv"
    for header in (f"file,{'x' * 50_000}", "file,\x1b[2J\x07"):
        odd.write_text(f"{header}\na.jpg,1\n")
        done = gaip3("import-labels", odd, "--root", root.path)
        assert done.exit_code == 1
        assert len(done.output) < 1100
        assert "\x1b" not in done.output
        assert f"{odd}, line 1: the columns are file, " in done.output
        assert "there must be" in done.output
