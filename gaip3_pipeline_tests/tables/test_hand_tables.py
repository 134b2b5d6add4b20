"""Tables that people write: every dialect that is read is written back in itself, and what cannot
be read is refused in one line."""

import pytest

from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.tables.contracts import (
    read_gender_probabilities,
    read_input_values,
    read_labels,
)
from gaip3_pipeline.tables.dropping import change_dropped
from gaip3_pipeline.tables.duplicates import read_dropped
from gaip3_pipeline.tables.hand_tables import read_table
from gaip3_pipeline.tables.label_formats import read_label_file
from gaip3_pipeline.tables.label_store import Edit, LabelStore
from gaip3_pipeline.tables.problems import ContractError

HEAD = "gender,img_id,path,value\n"
FEMALE = IMAGE_SETS[1]
SEMICOLONS = (
    "gender;img_id;path;value;Bemerkung;;\n"
    'female;0;resized/a.png;0,25;"zwei\nZeilen; und ""mehr""";;\n'
    "female;1;resized/b, c.jpg;1;;;\n"
    ";;;;;;\n"
)


@pytest.fixture
def root(tmp_path) -> DataRoot:
    """A root with four originals of women; the files are empty, since they are not opened here."""
    root = DataRoot(tmp_path / "얼굴 data")
    root.original(FEMALE).mkdir(parents=True)
    for name in ("a.jpg", "b, c.jpg", "d.jpg", "e;f.jpg"):
        (root.original(FEMALE) / name).touch()
    return root


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def labels_in(root: DataRoot) -> dict[str, float]:
    """What training reads, by stem; it agrees with what the page shows."""
    table = read_labels(root.hand_labels("mouth")).table
    found = dict(zip(table.stem, table.value, strict=True))
    assert {stem: v for (_, stem), v in LabelStore(root).values("mouth").items()} == found
    return found


def test_semicolons_and_decimal_commas_are_read_and_written_back(root):
    path = write(root.hand_labels("mouth"), SEMICOLONS)
    assert labels_in(root) == {"a": 0.25, "b, c": 1.0}
    store = LabelStore(root)
    store.apply([Edit("mouth", "female", "b, c", 0.75), Edit("mouth", "female", "e;f", 0.5)], "kim")
    lines = path.read_text(encoding="utf-8")
    assert lines == SEMICOLONS.replace(";1;;;\n", ";0,75;;;\n").replace(
        ";;;;;;\n", 'female;3;"resized/female/e;f.jpg";0,5;\n'
    )
    store.apply([Edit("mouth", "female", "a", 1.0)], "kim", "tab")
    assert '1,0;"zwei\nZeilen; und ""mehr"""' in path.read_text(encoding="utf-8")
    store.apply([Edit("mouth", "female", "a", None)], "kim", "tab")
    store.undo("kim", "tab")
    store.undo("kim", "tab")
    assert '0,25;"zwei\nZeilen; und ""mehr"""' in path.read_text(encoding="utf-8")
    assert labels_in(root) == {"a": 0.25, "b, c": 0.75, "e;f": 0.5}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("gender;img_id;path;value\nfemale;0;a.jpg;1\n", "0,5"),
        ("gender;img_id;path;value\nfemale;0;a.jpg;1.0\n", "0.5"),
        ("gender\timg_id\tpath\tvalue\nfemale\t0\ta.jpg\t1\n", "0.5"),
        ("gender\timg_id\tpath\tvalue\nfemale\t0\ta.jpg\t1,0\n", "0,5"),
        ('gender,img_id,path,value\nfemale,0,a.jpg,"1,0"\n', '"0,5"'),
        ("gender,img_id,path,value\nfemale,0,a.jpg,1\n", "0.5"),
    ],
)
def test_a_new_value_is_written_as_the_others_are(root, text, written):
    path = write(root.hand_labels("mouth"), text)
    LabelStore(root).apply([Edit("mouth", "female", "d", 0.5)], "kim")
    added = f"female,2,resized/female/d.jpg,{written}\n"
    separator = text[len("gender")]
    assert path.read_text() == text + added.replace(",", separator, 3)
    assert labels_in(root) == {"a": 1.0, "d": 0.5}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_spreadsheets_save_is_read_everywhere(root, tmp_path, encoding, end, separator):
    def saved(path, text):
        bom = "\ufeff" if encoding == "utf-16-be" else ""
        return write(path, bom + text.replace(",", separator).replace("\n", end), encoding)

    saved(root.hand_labels("mouth"), "\n" + HEAD + ",,,\nfemale,0,a.jpg,0.5\n   \nfemale,1,d.jpg,1")
    assert labels_in(root) == {"a": 0.5, "d": 1.0}
    LabelStore(root).apply([Edit("mouth", "female", "a", 0.25)], "kim")
    assert labels_in(root) == {"a": 0.25, "d": 1.0}

    known = {"female": {"a", "d"}}
    plain = saved(tmp_path / "plain.csv", "file,mouth,eyes\na.jpg,0.5,\n,,\nd.jpg,,1\n")
    assert read_label_file(plain, known).values == {
        "mouth": {("female", "a"): 0.5},
        "eyes": {("female", "d"): 1.0},
    }
    studio = saved(tmp_path / "studio.csv", "annotation_id,image,id,mouth\n1,a.jpg,1,0.5\n,,,\n")
    assert read_label_file(studio, known).values == {"mouth": {("female", "a"): 0.5}}

    saved(root.dropped, "path,reason\nresized/female/a.jpg,blurred\n,\n")
    assert read_dropped(root.dropped) == {("d2_female", "a"): "blurred"}

    gender = ",image_path,prob_male,prob_female\n0,resized/female/a.jpg,0.25,0.75\n,,,\n"
    saved(root.gender_probabilities, gender)
    assert read_gender_probabilities(root.gender_probabilities).prob_female.tolist() == [0.75]
    saved(root.input_values("head"), "image_path,head\nfinal/a.jpg,0.25\n,\n")
    assert read_input_values(root.input_values("head"), "head")["head"].tolist() == [0.25]


def test_decimal_commas_are_read_in_every_table(root, tmp_path):
    known = {"female": {"a"}}
    for text in ("file;value\na.jpg;0,5\n", 'file,value\na.jpg,"0,5"\n'):
        found = read_label_file(write(tmp_path / "plain.csv", text), known, "mouth")
        assert found.values == {"mouth": {("female", "a"): 0.5}}
    contract = write(tmp_path / "train_output_mouth.csv", SEMICOLONS)
    assert read_label_file(contract, known).values == {"mouth": {("female", "a"): 0.25}}
    write(root.gender_probabilities, "image_path;prob_male;prob_female\na.jpg;2,5E-01;0,75\n")
    assert read_gender_probabilities(root.gender_probabilities).prob_male.tolist() == [0.25]


READERS = {
    "labels": (lambda p: read_labels(p), "gender,img_id,path,value", "female,0,a.jpg,1"),
    "page": (
        lambda p: LabelStore(DataRoot(p.parents[1])).values("mouth"),
        "gender,img_id,path,value",
        "female,0,a.jpg,1",
    ),
    "import": (lambda p: read_label_file(p, {"female": {"a"}}, "mouth"), "file,value", "a.jpg,1"),
    "contract import": (
        lambda p: read_label_file(p, {"female": {"a"}}, "mouth"),
        "gender,img_id,path,value",
        "female,0,a.jpg,1",
    ),
    "Label Studio": (
        lambda p: read_label_file(p, {"female": {"a"}}),
        "annotation_id,image,mouth",
        "1,a.jpg,1",
    ),
    "dropped": (read_dropped, "path,reason", "resized/female/a.jpg,x"),
    "gender": (
        read_gender_probabilities,
        ",image_path,prob_male,prob_female",
        "0,resized/female/a.jpg,0.5,0.5",
    ),
    "input values": (
        lambda p: read_input_values(p, "head"),
        "image_path,head",
        "final/a.jpg,0.5",
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_columns_of_one_name_are_refused_in_every_table(tmp_path, name):
    read, header, row = READERS[name]
    path = tmp_path / "labels" / "train_output_mouth.csv"
    read(write(path, f"{header}\n{row}\n"))
    for column in filter(None, header.split(",")):
        for again in (column, column.upper(), f" {column} "):
            write(path, f"{header},{again}\n{row},0\n")
            with pytest.raises(ContractError, match="two columns have one name") as raised:
                read(path)
            assert str(raised.value).startswith(f"{path}, line 1: ")
            assert f"'{column}' and '{again}'" in str(raised.value)
    write(path, f"{header},remark,Remark\n{row},x,y\n")
    with pytest.raises(ContractError, match="'remark' and 'Remark'"):
        read(path)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda h, r: f"{h}\n{r},stray\n", r"line 2: more than \d fields; put .* comma in quotes"),
        (lambda h, r: f"{h},,\n{r},,stray\n", "line 2: more than"),
        (lambda h, r: f"{h}\n{r}\n\0\n", "line 3: a NUL byte"),
        (lambda h, r: f'{h}\n{r}\n"a" b\n', "line 3: not a CSV row: .* write each quote in it"),
        (lambda h, r: f'{h}\n{r}\n"a\n', "line 3: not a CSV row"),
        (lambda h, r: "", "line 1: "),
        (lambda h, r: "\n  \n,,\n", "line 1: "),
        (lambda h, r: f"{h}\n{r}\n".replace(",", "|"), "line 1: "),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, name, change, complaint):
    read, header, row = READERS[name]
    path = write(tmp_path / "labels" / "train_output_mouth.csv", change(header, row))
    with pytest.raises(ContractError, match=complaint) as raised:
        read(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", READERS)
def test_a_table_may_have_empty_columns_at_its_end_and_one_without_a_name(tmp_path, name):
    read, header, row = READERS[name]
    path = tmp_path / "labels" / "train_output_mouth.csv"
    read(write(path, f"{header},,\n{row},,\n{',' * row.count(',')},,,\n"))
    if not header.startswith(","):
        read(write(path, f",{header}\n7,{row}\n"))


def test_a_column_without_a_name_is_kept_when_a_row_comes_back(root):
    text = ",gender,img_id,path,value\n7,female,0,a.jpg,1\n"
    path = write(root.hand_labels("mouth"), text)
    store = LabelStore(root)
    store.apply([Edit("mouth", "female", "a", None)], "kim", "tab")
    store.undo("kim", "tab")
    assert path.read_text() == text
    store.apply([Edit("mouth", "female", "a", 0.5)], "kim")
    assert path.read_text() == text.replace(",1\n", ",0.5\n")


def test_a_remark_of_several_lines_stays_one_field_when_its_row_changes(root):
    text = HEAD.replace("value", "value,remark") + 'female,0,a.jpg,1,"two\nlines\rof\r\n""text"""\n'
    path = write(root.hand_labels("mouth"), text)
    LabelStore(root).apply([Edit("mouth", "female", "a", 0.5)], "kim")
    assert path.read_bytes().decode() == text.replace("a.jpg,1,", "a.jpg,0.5,")
    assert labels_in(root) == {"a": 0.5}


def test_a_header_alone_is_a_table_without_rows(root, tmp_path):
    write(root.hand_labels("mouth"), HEAD.replace(",", ";"))
    assert labels_in(root) == {}
    LabelStore(root).apply([Edit("mouth", "female", "a", 0.5)], "kim")
    assert root.hand_labels("mouth").read_text() == (
        "gender;img_id;path;value\nfemale;0;resized/female/a.jpg;0,5\n"
    )
    write(root.dropped, "path,reason\n")
    assert read_dropped(root.dropped) == {}


def test_the_separator_is_that_of_the_columns_also_if_a_remark_holds_others(tmp_path):
    text = 'gender,img_id,path,value,"note; a; b; c; d; e; f"\nfemale,0,a.jpg,1,\n'
    assert read_labels(write(tmp_path / "l.csv", text)).table.stem.tolist() == ["a"]
    table = read_table(write(tmp_path / "d.csv", "path;reason, or none\n"), ["path", "reason"])
    assert table.columns == ["path", "reason, or none"]


@pytest.mark.parametrize("value", ["0_5", "0,5,0", "0.5,0", "½", "1e", "nan", "inf", "0 5"])
def test_nothing_else_is_guessed_to_be_a_number(tmp_path, value):
    path = write(tmp_path / "l.csv", HEAD.replace(",", ";") + f"female;0;a.jpg;{value}\n")
    with pytest.raises(ContractError, match=r"line 2: column value is"):
        read_labels(path)


def test_dropping_keeps_the_list_as_a_person_wrote_it(root):
    before = 'who;reason;path\nkim;"blurred; twice";resized\\female\\a.png\n'
    write(root.dropped, before)
    other = f"original/{FEMALE.original}/e;f.jpg"
    assert change_dropped(root, [other], "no face") == [other]
    assert root.dropped.read_text(encoding="utf-8") == before + f';no face;"{other}"\n'
    assert change_dropped(root, [other], "", undo=True) == [other]
    assert root.dropped.read_text(encoding="utf-8") == before
    assert read_dropped(root.dropped) == {("d2_female", "a"): "blurred; twice"}


@pytest.mark.parametrize("start", ["sep=;", "\ufeffSEP=;", '"sep=;"', "sep=;;;;"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_excels_line_with_the_separator_is_passed_over_and_kept(root, tmp_path, start, end):
    def saved(path, *lines):
        return write(path, end.join([start, *lines, ""]))

    path = saved(
        root.hand_labels("mouth"),
        "gender;img_id;path;value",
        "female;0;a.png;0,25",
        "female;1;d.png;1",
    )
    assert labels_in(root) == {"a": 0.25, "d": 1.0}
    LabelStore(root).apply([Edit("mouth", "female", "d", 0.75)], "kim")
    assert path.read_text(encoding="utf-8") == (
        f"{start}\ngender;img_id;path;value\nfemale;0;a.png;0,25\nfemale;1;d.png;0,75\n"
    )
    folder = f"original/{FEMALE.original}"
    saved(root.dropped, "path;reason", f"{folder}/a.jpg;blurred")
    change_dropped(root, [f"{folder}/d.jpg"], "dark")
    assert read_dropped(root.dropped) == {
        (FEMALE.id, "a"): "blurred",
        (FEMALE.id, "d"): "dark",
    }
    assert root.dropped.read_text(encoding="utf-8").startswith(f"{start}\npath;reason\n")
    foreign = saved(tmp_path / "a.csv", "file;mouth", "a.jpg;0,5")
    read = read_label_file(foreign, {"female": {"a"}, "male": set()})
    assert read.values["mouth"] == {("female", "a"): 0.5}
    values = saved(tmp_path / "b.csv", "image_path;mouth", "final/a.jpg;0,5")
    assert list(read_input_values(values, "mouth").mouth) == [0.5]


def test_lines_are_counted_from_the_first_one_of_the_file(tmp_path):
    path = write(tmp_path / "a.csv", f"sep=,\n{HEAD}female,0,a.png,1\nfemale,1,b.png,2\n")
    with pytest.raises(ContractError, match="line 4: column value is '2'"):
        read_labels(path)
    with pytest.raises(ContractError, match="line 2: column gender is missing"):
        read_labels(write(path, "sep=|\ngender|img_id|path|value\n"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
def test_all_byte_order_marks_are_passed_over_and_one_is_kept(root, encoding):
    path = write(root.hand_labels("mouth"), f"\ufeff\ufeff{HEAD}female,0,a.png,1\n", encoding)
    assert labels_in(root) == {"a": 1.0}
    LabelStore(root).apply([Edit("mouth", "female", "a", 0.5)], "kim")
    assert path.read_text(encoding="utf-8") == f"\ufeff{HEAD}female,0,a.png,0.5\n"


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "marker", ["<<<<<<< HEAD", ">>>>>>> theirs", "||||||| base", "=======", "<<<<<<< HEAD,,,"]
)
def test_a_merge_conflict_is_named_in_every_table(tmp_path, name, end, marker):
    read, header, row = READERS[name]
    path = tmp_path / "labels" / "train_output_mouth.csv"
    write(path, end.join([header, row, marker, ""]))
    with pytest.raises(ContractError) as raised:
        read(path)
    message = str(raised.value)
    assert message.startswith(f"{path}, line 3: a merge conflict ({marker[:7]}); keep the rows")
    assert "\n" not in message


def test_a_line_of_equal_signs_in_a_remark_is_no_merge_conflict(tmp_path):
    text = 'gender,img_id,path,value,remark\nfemale,0,a.png,1,"Title\n=======\ntext"\n'
    assert len(read_labels(write(tmp_path / "a.csv", text)).table) == 1
