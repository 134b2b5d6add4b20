"""Tables edited by people: which deviations are accepted, which are refused, and the error
messages."""

import unicodedata

import numpy as np
import pandas as pd
import pytest

from gaip3_pipeline.tables.contracts import (
    REVIEW_COLUMNS,
    ContractError,
    read_gender_probabilities,
    read_input_values,
    read_label_review,
    read_labels,
    read_samples,
    write_gender_probabilities,
    write_input_values,
    write_labels,
    write_samples,
)
from gaip3_pipeline.tables.duplicates import set_and_stem

HEAD = "gender,img_id,path,value\n"


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_folder_and_extension_of_a_label_are_ignored(tmp_path):
    path = write(
        tmp_path / "l.csv",
        HEAD + "female,0,dataset\\resized\\a b.png,0.5\nmale,0,somewhere/얼굴 😀.jpeg,1\n",
    )
    table = read_labels(path).table
    assert list(zip(table.gender, table.stem, table.value, strict=True)) == [
        ("female", "a b", 0.5),
        ("male", "얼굴 😀", 1.0),
    ]


def test_a_spreadsheets_bom_crlf_and_further_columns_are_read(tmp_path):
    text = "gender,remark,img_id,path,value\r\nFemale,,0,resized/a.jpg,0.25\r\n"
    table = read_labels(write(tmp_path / "l.csv", text, "utf-8-sig")).table
    assert table.value.tolist() == [0.25]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("female,0,a.jpg,1.5", r"line 2: column value is '1\.5'; write a number from 0 to 1"),
        ("female,0,a.jpg,-0.1", "column value is '-0.1'"),
        ("female,0,a.jpg,", "line 2: column value is empty"),
        ("female,0,a.jpg,nan", "column value is 'nan'"),
        ("female,0,a.jpg,open", "column value is 'open'"),
        ("woman,0,a.jpg,1", "line 2: column gender is 'woman'; write female or male"),
        ("female,0,a.jpg", "line 2: 3 fields, 4 expected"),
        (
            "female,0,a.jpg,1\nfemale,1,b/a.png,0",
            "line 3: column value is 0 for female a, but line 2 says 1; keep one of the two",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_remedy(tmp_path, row, complaint):
    with pytest.raises(ContractError, match=complaint) as raised:
        read_labels(write(tmp_path / "train_output_eyes.csv", HEAD + row + "\n"))
    assert "train_output_eyes.csv" in str(raised.value)


def test_many_broken_rows_are_listed_together_but_not_endlessly(tmp_path):
    rows = "".join(f"female,{i},{i}.jpg,2\n" for i in range(100))
    with pytest.raises(ContractError) as raised:
        read_labels(write(tmp_path / "l.csv", HEAD + rows))
    lines = str(raised.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "… and 80 more"


def test_a_missing_column_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(ContractError, match="line 1: column value is missing"):
        read_labels(write(tmp_path / "l.csv", "gender,img_id,path\nfemale,0,a.jpg\n"))
    with pytest.raises(ContractError, match="no such file"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(ContractError, match="not UTF-8"):
        read_labels(write(tmp_path / "k.csv", HEAD + "female,0,얼굴.jpg,1\n", "cp949"))


def test_labels_of_images_that_are_not_there_and_repeated_rows_are_left_out_and_listed(tmp_path):
    text = HEAD + "female,0,a.jpg,1\nfemale,1,gone.jpg,1\nfemale,2,a.png,1\nmale,0,a.jpg,0\n"
    labels = read_labels(write(tmp_path / "l.csv", text), {"female": {"a"}, "male": {"a"}})
    assert labels.table[["gender", "stem"]].to_numpy().tolist() == [["female", "a"], ["male", "a"]]
    assert labels.left_out == [
        "line 3: there is no image gone in the female originals",
        "line 4: female a again (first in line 2)",
    ]


def test_checked_labels_do_not_depend_on_the_order_of_rows(tmp_path):
    a = read_labels(write(tmp_path / "a.csv", HEAD + "female,0,x.jpg,1\nmale,0,y.jpg,0\n")).table
    b = read_labels(
        write(tmp_path / "b.csv", HEAD + "male,0,q/y.png,0.0\nfemale,0,x.jpg,1.00\n")
    ).table
    write_labels(tmp_path / "a.out", a)
    write_labels(tmp_path / "b.out", b)
    assert (tmp_path / "a.out").read_bytes() == (tmp_path / "b.out").read_bytes()


def test_gender_probabilities_keep_every_bit_of_float32(tmp_path):
    values = np.array([[1e-4, 0.9999], [1.7222796e-06, 0.99999833], [0.1, 0.9]], np.float32)
    names = ["resized/female/a,b.jpg", "augmented/10k-images/한 글.jpg", "resized/male/c.jpg"]
    write_gender_probabilities(tmp_path / "g.csv", names, values)
    text = (tmp_path / "g.csv").read_text(encoding="utf-8")
    assert text.startswith(",image_path,prob_male,prob_female\n0,")
    assert "\r" not in text
    table = read_gender_probabilities(tmp_path / "g.csv")
    assert table.image_path.tolist() == names
    assert table.prob_female.to_numpy(np.float32).tolist() == values[:, 1].tolist()
    assert (table.prob_female >= 0.9999).tolist() == [True, True, False]


def test_the_first_runs_predictions_are_read(first_run_tables):
    table = read_gender_probabilities(
        first_run_tables / "model_outputs" / "all_output_decide_train_data.csv"
    )
    assert len(table) == 33746
    assert not table.image_path.str.startswith("dataset/").any()
    values = read_input_values(first_run_tables / "model_outputs" / "all_output_mouth.csv", "mouth")
    assert len(values) == 13064


def test_input_values_are_rounded_and_checked(tmp_path):
    write_input_values(
        tmp_path / "v.csv", "eyes", ["final/a.jpg"], np.array([0.123456], np.float32)
    )
    assert (tmp_path / "v.csv").read_text() == "image_path,eyes\nfinal/a.jpg,0.1235\n"
    with pytest.raises(ContractError, match=r"line 2: column eyes is 1\.5, outside"):
        read_input_values(write(tmp_path / "w.csv", "image_path,eyes\nfinal/a.jpg,1.5\n"), "eyes")
    with pytest.raises(ContractError, match="line 3: column eyes is not a number"):
        read_input_values(
            write(tmp_path / "x.csv", "image_path,eyes\nfinal/a.jpg,1\nfinal/b.jpg,?\n"), "eyes"
        )


@pytest.mark.parametrize("end", ["", "\n,,\n", "\n,\n"])
def test_a_table_as_it_is_written_is_read_like_one_that_a_spreadsheet_saved(tmp_path, end):
    random = np.random.default_rng(0)
    names = ["./dataset/a.jpg", 'quote".jpg', "a,b.jpg", "e\u0301.jpg", *map(str, range(50))]
    values = random.random((len(names), 2)).astype(np.float32)
    write_gender_probabilities(tmp_path / "plain.csv", names, values)
    text = (tmp_path / "plain.csv").read_text(encoding="utf-8")
    # blank rows and UTF-16 are read row by row
    for name, data in (("a.csv", (text + end).encode()), ("b.csv", text.encode("utf-16"))):
        (tmp_path / name).write_bytes(data)
        read = read_gender_probabilities(tmp_path / name)
        pd.testing.assert_frame_equal(
            read, read_gender_probabilities(tmp_path / "plain.csv"), check_exact=True
        )
    assert read.prob_male.tolist() == [float(str(v)) for v in values[:, 0]]
    assert read.image_path.tolist()[:4] == ["a.jpg", 'quote".jpg', "a,b.jpg", "\xe9.jpg"]


def test_samples_survive_a_round_trip(tmp_path):
    row = {
        "image_path": "samples/000000.jpg",
        "eyes": 1.0,
        "mouth": 0.25,
        "hair_color": 0.5,
        "background": 0.0,
        "head": 0.5,
    }
    table = pd.DataFrame(
        [{**row, "seed": 7, "temperature": 0.8, "guidance": 1.0, "outcome": "retouched"}]
    )
    write_samples(tmp_path / "samples.csv", table)
    assert read_samples(tmp_path / "samples.csv").to_dict("records") == table.to_dict("records")


def test_names_of_tables_are_read_in_nfc(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "\xe9\uac00") for form in ("NFC", "NFD"))
    labels = tmp_path / "labels.csv"
    labels.write_text(f"gender,img_id,path,value\nfemale,0,resized/{nfd}.png,1\n", encoding="utf-8")
    read = read_labels(labels, {"female": {nfc}})
    assert (read.table.stem.tolist(), read.left_out) == ([nfc], [])
    table = tmp_path / "gender.csv"
    write_gender_probabilities(table, [f"resized/female/{nfd}.jpg"], np.ones((1, 2)))
    paths = read_gender_probabilities(table).image_path
    assert paths.tolist() == [f"resized/female/{nfc}.jpg"]
    review = tmp_path / "review.csv"
    review.write_text(f"{','.join(REVIEW_COLUMNS)}\nfemale,{nfd},,,,,\n", encoding="utf-8")
    assert read_label_review(review).stem.tolist() == [nfc]
    assert set_and_stem(f"original/ThisPersonDoesNotExist/Female/{nfd}.jpg") == ("d2_female", nfc)
