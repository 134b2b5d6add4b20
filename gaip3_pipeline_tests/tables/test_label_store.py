"""Several people label at the same time: the content of the CSVs, the history, and undo."""

import errno
import json
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.tables.contracts import read_labels
from gaip3_pipeline.tables.label_store import OUTSIDE, Edit, LabelConflict, LabelStore
from gaip3_pipeline.tables.problems import ContractError

HEAD = "gender,img_id,path,value\n"


@pytest.fixture
def root(tmp_path) -> DataRoot:
    """A root with five originals of women and five of men; the files are empty, since they are not
    opened here."""
    root = DataRoot(tmp_path / "얼굴 data")
    for image_set in IMAGE_SETS[1:]:
        root.original(image_set).mkdir(parents=True)
        for name in ("a.jpg", "b 2.PNG", "c.jpeg", "d,comma.webp", "이름.jpg"):
            (root.original(image_set) / name).touch()
    return root


def write(root, attribute, text):
    path = root.hand_labels(attribute)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def text_of(root, attribute):
    return root.hand_labels(attribute).read_bytes().decode()


def test_a_first_label_makes_the_file_of_the_contract(root):
    store = LabelStore(root)
    store.apply(
        [Edit("mouth", "male", "이름", 0.25), Edit("mouth", "female", "d,comma", 1.0)], "kim"
    )
    assert (
        text_of(root, "mouth")
        == HEAD + 'male,4,resized/male/이름.jpg,0.25\nfemale,3,"resized/female/d,comma.jpg",1.0\n'
    )
    assert store.values("mouth") == {("male", "이름"): 0.25, ("female", "d,comma"): 1.0}


def test_untouched_rows_keep_text_order_and_unknown_columns(root):
    text = (
        'remark,gender,img_id,path,value\n"two\nlines,'
        ' quoted",male,7,dataset\\resized\\c.png,0.50\n,female,0,resized/a.png,1\nx,Male,9,b'
        " 2.png,0\n"
    )
    write(root, "eyes", text)
    LabelStore(root).apply([Edit("eyes", "female", "a", 0.5)], "kim")
    assert text_of(root, "eyes") == text.replace("resized/a.png,1\n", "resized/a.png,0.5\n")


def test_a_spreadsheets_crlf_becomes_the_contracts_line_end_and_its_bom_stays(root):
    path = write(root, "eyes", "")
    path.write_bytes(("\ufeff" + HEAD + "female,0,a.png,1\n").replace("\n", "\r\n").encode())
    LabelStore(root).apply([Edit("eyes", "female", "c", 0.0)], "kim")
    # without the mark Excel would not read Korean names as UTF-8
    assert (
        text_of(root, "eyes")
        == "\ufeff" + HEAD + "female,0,a.png,1\nfemale,2,resized/female/c.jpg,0.0\n"
    )


def test_a_repeated_row_gets_the_same_value(root):
    write(root, "head", HEAD + "female,0,a.png,1\nfemale,0,old/a.jpg,1.0\n")
    LabelStore(root).apply([Edit("head", "female", "a", 0.5)], "kim")
    assert read_labels(root.hand_labels("head")).table.value.tolist() == [0.5]


def test_the_history_records_who_changed_a_label_when_and_from_what(root):
    store = LabelStore(root)
    for who, value in (("kim", 0.0), ("lee", 0.5), ("lee", 0.5), ("kim", None)):
        store.apply([Edit("mouth", "female", "a", value)], who)
    changes = LabelStore(root).history("mouth", "female", "a")
    assert [(c.id, c.who, c.before, c.after) for c in changes] == [
        (1, "kim", None, 0.0),
        (2, "lee", 0.0, 0.5),
        (3, "kim", 0.5, None),
    ]
    assert all(c.time.endswith("+00:00") for c in changes)


def test_a_confirmed_label_is_recorded_and_can_be_undone(root):
    store = LabelStore(root)
    store.apply([Edit("mouth", "female", "a", 0.5)], "kim")
    store.apply([Edit("mouth", "female", "a", 0.5)], "lee", "tab", confirm=True)
    assert [(c.who, c.before, c.after) for c in store.history()] == [
        ("kim", None, 0.5),
        ("lee", 0.5, 0.5),
    ]
    assert store.undo("lee", "tab").undoes == 2
    assert store.undo("lee", "tab") is None


def test_undo_takes_back_the_changes_of_its_own_tab_one_by_one(root):
    store = LabelStore(root)
    store.apply([Edit("mouth", "female", "a", 0.0)], "kim", "tab 1")
    store.apply([Edit("mouth", "female", "a", 1.0)], "kim", "tab 1")
    store.apply([Edit("mouth", "male", "a", 0.25)], "kim", "tab 2")
    assert store.undo("kim", "tab 1").after == 0.0
    assert store.undo("kim", "tab 1").after is None
    assert store.undo("kim", "tab 1") is None
    assert store.values("mouth") == {("male", "a"): 0.25}
    assert [c.undoes for c in store.history()] == [0, 0, 0, 2, 1]


def test_undo_does_not_overwrite_a_later_change_by_somebody_else(root):
    store = LabelStore(root)
    store.apply([Edit("mouth", "female", "c", 0.75)], "kim", "tab 1")
    store.apply([Edit("mouth", "female", "a", 0.0)], "kim", "tab 1")
    store.apply([Edit("mouth", "female", "a", 1.0)], "lee", "tab 2")
    with pytest.raises(LabelConflict, match="mouth of a was changed since by lee; it stays 1"):
        store.undo("kim", "tab 1")
    assert store.undo("kim", "tab 1").stem == "c"
    assert store.values("mouth") == {("female", "a"): 1.0}


def test_undo_restores_a_removed_row_with_all_columns_in_its_place(root):
    text = (
        "gender,img_id,path,value,remark\nfemale,0,a.png,1,x\nmale,5,old/c.png,0.5,glasses\nmale,1,b"
        " 2.png,0,\n"
    )
    write(root, "eyes", text)
    store = LabelStore(root)
    [removed] = store.apply([Edit("eyes", "male", "c", None)], "kim", "tab")
    assert ("male", "c") not in store.values("eyes")
    LabelStore(root).undo("kim", "tab")
    assert text_of(root, "eyes") == text
    store.restore(removed.id, "lee", "")
    assert text_of(root, "eyes") == text  # unchanged, since the label has this value already


def test_an_edit_made_outside_is_kept_and_recorded(root):
    write(root, "mouth", HEAD + "female,0,a.png,1\nfemale,2,c.png,1\n")
    store = LabelStore(root)
    store.apply([Edit("mouth", "female", "a", 0.5)], "kim")
    table = pd.read_csv(root.hand_labels("mouth"), dtype=str)
    table.loc[1, "value"] = "0.25"
    table.to_csv(root.hand_labels("mouth"), index=False)
    store.apply([Edit("mouth", "male", "a", 1.0)], "kim")
    assert store.values("mouth") == {
        ("female", "a"): 0.5,
        ("female", "c"): 0.25,
        ("male", "a"): 1.0,
    }
    assert [(c.who, c.stem, c.before, c.after) for c in store.history("mouth")][1] == (
        OUTSIDE,
        "c",
        1.0,
        0.25,
    )


def test_two_processes_lose_nothing_and_share_one_history(root):
    stores = [
        LabelStore(root) for _ in range(4)
    ]  # each with its own state, as separate processes have
    stems = list(stores[0].images["female"])

    def label(i):
        store = stores[i % 4]
        store.apply(
            [
                Edit(
                    "hair_color",
                    ("female", "male")[i % 2],
                    stems[i // 2 % 5],
                    round((i % 5) / 4, 2),
                )
            ],
            f"person {i % 4}",
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(label, range(80)))
    changes = LabelStore(root).history()
    assert [c.id for c in changes] == list(range(1, len(changes) + 1))
    last = {(c.gender, c.stem): c.after for c in changes}
    assert LabelStore(root).values("hair_color") == last
    assert len(last) == 10


def test_a_torn_last_line_of_the_history_is_dropped(root):
    LabelStore(root).apply([Edit("mouth", "female", "a", 0.5)], "kim")
    with root.label_history.open("a") as f:
        f.write('{"id": 2, "ti')
    store = LabelStore(root)
    store.apply([Edit("mouth", "female", "a", 1.0)], "kim")
    assert [
        json.loads(line)["after"]
        for line in root.label_history.read_text(encoding="utf-8").splitlines()
    ] == [0.5, 1.0]


def test_a_file_that_breaks_the_contract_is_not_changed(root):
    path = write(root, "mouth", HEAD + "female,0,a.png,2\n")
    with pytest.raises(
        ContractError, match=r"train_output_mouth\.csv, line 2: column value is '2'"
    ):
        LabelStore(root).apply([Edit("mouth", "female", "c", 1.0)], "kim")
    assert path.read_text(encoding="utf-8") == HEAD + "female,0,a.png,2\n"


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (Edit("nose", "female", "a", 1.0), "there is no attribute nose"),
        (
            Edit("mouth", "female", "../../a", 1.0),
            "there is no image ../../a in the female originals",
        ),
        (Edit("mouth", "other", "a", 1.0), "there is no image a in the other originals"),
        (Edit("mouth", "female", "a", 1.5), "a value lies in 0..1"),
        (Edit("mouth", "female", "a", float("nan")), "a value lies in 0..1"),
    ],
)
def test_nothing_is_written_for_an_unknown_image_attribute_or_value(root, edit, complaint):
    with pytest.raises(ValueError, match=complaint):
        LabelStore(root).apply([Edit("mouth", "female", "a", 0.5), edit], "kim")
    assert not root.hand_labels("mouth").exists()


def test_changes_of_another_process_are_not_recorded_as_edits_made_outside(root):
    ours, theirs = LabelStore(root), LabelStore(root)
    ours.apply([Edit("mouth", "female", "a", 0.0)], "kim")
    theirs.apply([Edit("mouth", "female", "a", 0.5), Edit("mouth", "female", "c", 1.0)], "lee")
    assert ours.values("mouth") == {("female", "a"): 0.5, ("female", "c"): 1.0}
    assert [c.who for c in ours.history("mouth")] == ["kim", "lee", "lee"]


def test_a_change_that_a_killed_process_wrote_only_into_the_history_is_corrected(root):
    store = LabelStore(root)
    store.apply([Edit("mouth", "female", "a", 0.0)], "kim")
    before = root.hand_labels("mouth").read_bytes()
    store.apply([Edit("mouth", "female", "a", 1.0)], "kim")
    # as if the process had been killed before it wrote this file
    root.hand_labels("mouth").write_bytes(before)
    after = LabelStore(root)
    assert after.values("mouth") == {("female", "a"): 0.0}
    assert [(c.who, c.after) for c in after.history("mouth")] == [
        ("kim", 0.0),
        ("kim", 1.0),
        (OUTSIDE, 0.0),
    ]


def test_a_full_disk_leaves_neither_label_nor_history(root, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    store = LabelStore(root)
    with monkeypatch.context() as patch:
        patch.setattr("gaip3_pipeline.tables.label_store.write_text_atomically", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                store.apply([Edit("mouth", "female", "a", 0.0)], "kim")
    assert store.history() == LabelStore(root).history() == []
    [change] = store.apply([Edit("mouth", "female", "a", 0.5)], "kim")
    assert change.id == 1
    assert [c.after for c in LabelStore(root).history()] == [0.5]


@pytest.mark.parametrize("attribute", ["../../etc/passwd", "nose", "x" * 5000])
def test_an_unknown_attribute_is_refused_before_it_becomes_a_path(root, attribute):
    for ask in (LabelStore(root).history, LabelStore(root).values):
        with pytest.raises(ValueError, match="there is no attribute"):
            ask(attribute)


def test_names_in_another_unicode_spelling_are_the_same_image(root):
    nfc, nfd = (unicodedata.normalize(form, "\xe9 \uac00") for form in ("NFC", "NFD"))
    original = root.original(IMAGE_SETS[1]) / f"{nfd}.jpg"
    original.touch()
    write(root, "eyes", f"{HEAD}female,0,resized/{nfd}.png,0.5\n")
    store = LabelStore(root)
    assert store.images["female"][nfc] == original
    assert store.values("eyes") == {("female", nfc): 0.5}
    store.apply([Edit("eyes", "female", nfd, 1.0)], "kim")
    store.apply([Edit("eyes", "female", nfc, 0.25)], "kim")
    assert text_of(root, "eyes") == f"{HEAD}female,0,resized/{nfd}.png,0.25\n"
    history = root.label_history.read_text(encoding="utf-8")
    root.label_history.write_text(history.replace(nfc, nfd), encoding="utf-8")  # one of before
    assert [c.after for c in LabelStore(root).history("eyes", "female", nfd)] == [1.0, 0.25]
    assert LabelStore(root).values("eyes") == {("female", nfc): 0.25}
