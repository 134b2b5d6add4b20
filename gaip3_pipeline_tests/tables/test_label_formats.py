"""Labels from other tools: files in the format of each tool, the labels read from them, and the
error messages."""

import csv
import io
import json
import re
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import quote

import pytest

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.tables.label_formats import (
    label_studio_config,
    label_studio_csv,
    label_studio_json,
    plain_csv,
    read_label_file,
)
from gaip3_pipeline.tables.label_store import Edit
from gaip3_pipeline.tables.problems import ContractError

IMAGES = {
    ("female", "a"): "original/ThisPersonDoesNotExist/Female/a.jpg",
    ("female", "both"): "original/ThisPersonDoesNotExist/Female/both.png",
    ("female", '얼굴 "1", 2'): 'original/ThisPersonDoesNotExist/Female/more/얼굴 "1", 2.jpg',
    ("female", "50%25 #+?&"): "original/ThisPersonDoesNotExist/Female/50%25 #+?&.jpg",
    ("male", "both"): "original/ThisPersonDoesNotExist/Male/both.jpg",
    ("male", "my photo (3)"): "original/ThisPersonDoesNotExist/Male/my photo (3).webp",
}
KNOWN = {
    "female": {s for g, s in IMAGES if g == "female"},
    "male": {s for g, s in IMAGES if g == "male"},
}
LABELS = {
    "eyes": {("female", "a"): 1.0, ("male", "both"): 0.0, ("female", "50%25 #+?&"): 0.75},
    "mouth": dict(zip(IMAGES, (0.0, 0.25, 0.5, 0.75, 1.0, 0.1 + 0.2), strict=True)),
}

# As "Export > JSON" of a project with the configuration of export-labels writes it, shortened to
# three tasks.
JSON = """[{"id":41,
  "annotations":[
    {"id":7,"completed_by":1,"result":[
      {"value":{"number":0.25},"id":"q1VbNm2x0w","from_name":"mouth","to_name":"image","type":"number","origin":"manual"},
      {"value":{"choices":["0.5"]},"id":"hk3_fPQx9a","from_name":"head","to_name":"image","type":"choices","origin":"manual"},
      {"value":{"rating":4},"id":"Zl-kk3oO2s","from_name":"eyes","to_name":"image","type":"rating","origin":"manual"},
      {"value":{"text":["dark"]},"id":"rT7yUi8_p1","from_name":"note","to_name":"image","type":"textarea","origin":"manual"}],
     "was_cancelled":false,"ground_truth":false,"created_at":"2024-03-04T05:06:07.123456Z","updated_at":"2024-03-04T05:06:07.123489Z",
     "draft_created_at":null,"lead_time":6.31,"prediction":{},"result_count":4,"unique_id":"0b2f…","import_id":null,"last_action":null,
     "task":41,"project":3,"updated_by":1,"parent_prediction":null,"parent_annotation":null,"last_created_by":null},
    {"id":8,"completed_by":2,"result":[
      {"value":{"number":1},"id":"a8Hnm3_poI","from_name":"mouth","to_name":"image","type":"number","origin":"manual"}],
     "was_cancelled":true,"ground_truth":false,"created_at":"2024-03-05T05:06:07.123456Z","updated_at":"2024-03-05T05:06:07.123489Z",
     "lead_time":1.02,"result_count":1,"task":41,"project":3}],
  "file_upload":"0a1b2c3d-a.jpg",
  "drafts":[{"id":3,"user":"kim@example.com","result":[
      {"value":{"number":0.75},"id":"w1VbNm2x0w","from_name":"mouth","to_name":"image","type":"number"}],"lead_time":3.0,"task":41}],
  "predictions":[{"id":5,"model_version":"v1","score":0.9,"result":[
      {"value":{"number":0.0},"id":"e1VbNm2x0w","from_name":"mouth","to_name":"image","type":"number"}],"task":41}],
  "data":{"image":"/data/upload/3/0a1b2c3d-a.jpg"},"meta":{},"created_at":"2024-03-01T01:01:01.000001Z",
  "updated_at":"2024-03-05T05:06:07.200000Z","inner_id":1,"total_annotations":1,"cancelled_annotations":1,"total_predictions":1,
  "comment_count":0,"unresolved_comment_count":0,"last_comment_updated_at":null,"project":3,"updated_by":2,"comment_authors":[]},
 {"id":42,
  "annotations":[
    {"id":10,"completed_by":2,"result":[
      {"value":{"number":0.5},"id":"b1VbNm2x0w","from_name":"mouth","to_name":"image","type":"number","origin":"manual"}],
     "was_cancelled":false,"created_at":"2024-03-06T09:00:00.000000Z","updated_at":"2024-03-06T09:00:00.000000Z","task":42},
    {"id":9,"completed_by":1,"result":[
      {"value":{"number":0},"id":"c1VbNm2x0w","from_name":"mouth","to_name":"image","type":"number","origin":"manual"}],
     "was_cancelled":false,"created_at":"2024-03-04T09:00:00.000000Z","updated_at":"2024-03-04T09:00:00.000000Z","task":42}],
  "drafts":[],"predictions":[],"data":{"image":"/data/upload/3/ffee0011-%EC%96%BC%EA%B5%B4_1_2.jpg"},"meta":{},"project":3},
 {"id":43,"annotations":[],"drafts":[],"predictions":[],"data":{"image":"/data/upload/3/12345678-my_photo_3.webp"},"meta":{},"project":3}]
"""

# As "Export > JSON-MIN" and "Export > CSV" write the same project.
JSON_MIN = """[
{"image":"/data/upload/3/0a1b2c3d-a.jpg","id":41,"mouth":[{"number":0.25}],"head":"0.5","eyes":[{"rating":4}],"note":"dark",
 "annotator":1,"annotation_id":7,"created_at":"2024-03-04T05:06:07.123456Z","updated_at":"2024-03-04T05:06:07.123489Z","lead_time":6.31},
{"image":"/data/upload/3/ffee0011-%EC%96%BC%EA%B5%B4_1_2.jpg","id":42,"mouth":[{"number":0.5}],"annotator":2,"annotation_id":10,
 "created_at":"2024-03-06T09:00:00.000000Z","updated_at":"2024-03-06T09:00:00.000000Z","lead_time":2.0},
{"image":"/data/upload/3/ffee0011-%EC%96%BC%EA%B5%B4_1_2.jpg","id":42,"mouth":[{"number":0}],"annotator":1,"annotation_id":9,
 "created_at":"2024-03-04T09:00:00.000000Z","updated_at":"2024-03-04T09:00:00.000000Z","lead_time":2.5}
]"""
CSV = (
    '"annotation_id","annotator","created_at","eyes","head","id","image","lead_time","mouth","note","updated_at"\r\n'
    '7,"1","2024-03-04T05:06:07.123456Z","[{""rating"":4}]","0.5",41,"/data/upload/3/0a1b2c3d-a.jpg",6.31,"[{""number"":0.25}]","dark,'
    ' no",'
    '"2024-03-04T05:06:07.123489Z"\r\n'
    '10,"2","2024-03-06T09:00:00.000000Z","","",42,"/data/upload/3/ffee0011-%EC%96%BC%EA%B5%B4_1_2.jpg",2.0,"[{""number"":0.5}]","",'
    '"2024-03-06T09:00:00.000000Z"\r\n'
    '9,"1","2024-03-04T09:00:00.000000Z","","",42,"/data/upload/3/ffee0011-%EC%96%BC%EA%B5%B4_1_2.jpg",2.5,"[{""number"":0}]","",'
    '"2024-03-04T09:00:00.000000Z"\r\n'
)


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def task(image: str, number: float | None = 0.5, **data: str) -> dict:
    """A task of Label Studio's JSON with one annotation of the mouth."""
    result = [
        {"from_name": "mouth", "to_name": "image", "type": "number", "value": {"number": number}}
    ]
    return {
        "id": 1,
        "data": {"image": image, **data},
        "annotations": [{"id": 2, "result": result, "was_cancelled": False}],
    }


def read_tasks(tmp_path: Path, *tasks: dict, known=KNOWN):
    return read_label_file(write(tmp_path / "tasks.json", json.dumps(list(tasks))), known)


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("export.json", JSON, "Label Studio JSON"),
        ("export.json", JSON_MIN, "Label Studio JSON_MIN"),
        ("export.csv", CSV, "Label Studio CSV"),
        ("export.tsv", CSV.replace(",", "\t"), "Label Studio CSV"),
    ],
)
def test_label_studios_exports_give_the_same_labels(tmp_path, name, text, form):
    found = read_label_file(write(tmp_path / name, text), KNOWN)
    assert found.format == form
    face = ("female", '얼굴 "1", 2')
    assert found.values == {
        "mouth": {("female", "a"): 0.25, face: 0.5},
        "head": {("female", "a"): 0.5},
        "eyes": {("female", "a"): 0.75},
    }
    assert len(found.remarks) == 1
    assert (
        'mouth of female 얼굴 "1", 2 was given as 0, 0.5; the newest, 0.5, is taken'
        in found.remarks[0]
    )
    assert found.no_such_image == {}


@pytest.mark.parametrize("writer", [plain_csv, label_studio_json, label_studio_csv])
@pytest.mark.parametrize("attributes", [("mouth",), ("eyes", "mouth")])
def test_exported_labels_are_read_back_unchanged(tmp_path, writer, attributes):
    labels = {a: LABELS[a] for a in attributes}
    path = write(tmp_path / "out", writer(labels, IMAGES))
    found = read_label_file(path, KNOWN, "mouth" if len(attributes) == 1 else None)
    assert found.values == labels
    assert found.edits(labels) == []
    assert found.no_such_image == {}
    assert found.remarks == []


def test_tasks_for_label_studio_hold_what_its_import_asks_for():
    tasks = json.loads(
        label_studio_json(
            LABELS, {**IMAGES, ("male", "new"): "original/ThisPersonDoesNotExist/Male/new.jpg"}
        )
    )
    assert len(tasks) == len(IMAGES) + 1
    assert tasks[-1] == {
        "data": {
            "image": "/data/local-files/?d=original/ThisPersonDoesNotExist/Male/new.jpg",
            "gender": "male",
        },
        "annotations": [],
    }
    [annotation] = tasks[0]["annotations"]
    assert annotation["result"] == [
        {
            "id": "eyes",
            "from_name": "eyes",
            "to_name": "image",
            "type": "number",
            "value": {"number": 1.0},
        },
        {
            "id": "mouth",
            "from_name": "mouth",
            "to_name": "image",
            "type": "number",
            "value": {"number": 0.0},
        },
    ]
    assert not any("predictions" in t for t in tasks)
    assert tasks[3]["data"]["image"].endswith("Female/50%2525%20%23%2B%3F%26.jpg")


def test_the_labeling_configuration_has_the_controls_of_the_tasks():
    view = ET.fromstring(label_studio_config(ATTRIBUTES))
    [image] = view.iter("Image")
    assert image.attrib == {"name": "image", "value": "$image"}
    assert [
        (n.attrib["name"], n.attrib["toName"], n.attrib["min"], n.attrib["max"])
        for n in view.iter("Number")
    ] == [(a, "image", "0", "1") for a in ATTRIBUTES]
    assert "0.5 not turned" in [h.attrib["value"] for h in view.iter("Header")][-1]


def test_label_studios_csv_has_its_columns_in_its_order():
    header, first, *rest = csv.reader(
        io.StringIO(label_studio_csv({"mouth": LABELS["mouth"]}, IMAGES))
    )
    assert header == [
        "annotation_id",
        "annotator",
        "created_at",
        "gender",
        "id",
        "image",
        "lead_time",
        "mouth",
        "updated_at",
    ]
    assert first[header.index("mouth")] == '[{"number":0.0}]'
    assert len(rest) == len(IMAGES) - 1


def test_one_attribute_is_file_and_value_several_are_a_column_each():
    assert plain_csv({"eyes": LABELS["eyes"]}, IMAGES).splitlines()[:2] == [
        "file,value",
        f"{IMAGES['female', 'a']},1.0",
    ]
    lines = plain_csv(LABELS, IMAGES).splitlines()
    assert lines[0] == "file,eyes,mouth"
    assert lines[2] == f"{IMAGES['female', 'both']},,0.25"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("a.jpg", ("female", "a")),
        ("a", ("female", "a")),
        ("dataset\\resized\\female\\a.png", ("female", "a")),
        ("Male/both.jpg", ("male", "both")),
        ("/home/kim/data/original/ThisPersonDoesNotExist/Female/both.jpg", ("female", "both")),
        ("http://localhost:8080/data/local-files/?d=faces/male/both.jpg", ("male", "both")),
        ("/data/local-files/?d=faces%5Cmale%5Cboth.jpg", ("male", "both")),
        (
            "https://bucket.example.com/male/my%20photo%20(3).webp?X-Amz-Expires=3600&X-Amz-Signature=ab/cd",
            ("male", "my photo (3)"),
        ),
        ("s3://bucket/male/both.jpg", ("male", "both")),
        ("/data/upload/1/ab12cd34-my_photo_3.webp", ("male", "my photo (3)")),
        ("/data/upload/1/ab12cd34-my%20photo%20(3).webp", ("male", "my photo (3)")),
        ("50%25 #+?&.jpg", ("female", "50%25 #+?&")),
        ("/data/local-files/?d=50%2525%20%23%2B%3F%26.jpg", ("female", "50%25 #+?&")),
        # older versions of Label Studio do not encode
        ("/data/local-files/?d=50%25 #+?&.jpg", ("female", "50%25 #+?&")),
    ],
)
def test_an_image_is_found_by_its_name_in_every_spelling(tmp_path, text, key):
    assert read_tasks(tmp_path, task(text)).values == {"mouth": {key: 0.5}}


def test_a_name_that_begins_like_an_upload_is_taken_as_it_is(tmp_path):
    known = {"female": {"ab12cd34-a", "a"}, "male": set()}
    assert read_tasks(tmp_path, task("ab12cd34-a.jpg"), known=known).values == {
        "mouth": {("female", "ab12cd34-a"): 0.5}
    }


def test_a_field_gender_selects_one_of_two_images_of_the_same_name(tmp_path):
    assert read_tasks(tmp_path, task("both.jpg", gender="male")).values == {
        "mouth": {("male", "both"): 0.5}
    }
    path = write(tmp_path / "l.csv", "file,gender,value\nboth.jpg,Female,1\nboth.jpg,male,0\n")
    assert read_label_file(path, KNOWN, "eyes").values == {
        "eyes": {("female", "both"): 1.0, ("male", "both"): 0.0}
    }


def test_a_name_in_both_sexes_without_a_hint_is_refused(tmp_path):
    path = write(tmp_path / "l.csv", "file,value\na.jpg,1\nboth.jpg,1\n")
    with pytest.raises(
        ContractError,
        match=(
            r"l\.csv, line 3: both.jpg may be female both or male both; say which by a folder"
            r" female"
        ),
    ):
        read_label_file(path, KNOWN, "mouth")


def test_two_images_that_label_studio_stores_under_one_name_are_distinguished_or_refused(tmp_path):
    known = {"female": {"a b", "a_b"}, "male": set()}
    with pytest.raises(
        ContractError,
        match=(
            r"may be female a(.)b or female a(.)b, which Label Studio stores under one name;"
            r" rename one"
        ),
    ):
        read_tasks(tmp_path, task("/data/upload/1/ab12cd34-a_b.jpg"), known=known)
    assert read_tasks(tmp_path, task("/data/local-files/?d=a%20b.jpg"), known=known).values == {
        "mouth": {("female", "a b"): 0.5}
    }


def test_an_image_that_is_not_there_is_left_out_and_named(tmp_path):
    found = read_label_file(
        write(tmp_path / "l.csv", "file,value\na.jpg,1\ngone.jpg,1\nmale/a.jpg,0\n"), KNOWN, "mouth"
    )
    assert found.values == {"mouth": {("female", "a"): 1.0}}
    assert (
        found.summary("mouth", {})
        == "mouth: 1 new, 0 changed, 0 equal, 2 left out (no such image: gone, a)"
    )


def test_the_summary_counts_against_what_is_there(tmp_path):
    found = read_label_file(
        write(tmp_path / "l.csv", "file,value\na.jpg,1\nmale/both.jpg,0.5\nfemale/both.jpg,0\n"),
        KNOWN,
        "mouth",
    )
    before = {("female", "a"): 1.0, ("male", "both"): 0.0, ("male", "my photo (3)"): 0.0}
    assert found.summary("mouth", before) == "mouth: 1 new, 1 changed, 1 equal"
    assert found.edits({"mouth": before}) == [
        Edit("mouth", "male", "both", 0.5),
        Edit("mouth", "female", "both", 0.0),
    ]


def test_a_wide_table_labels_several_attributes_and_an_empty_cell_none(tmp_path):
    path = write(
        tmp_path / "l.csv",
        "file,mouth,comment,head\r\na.jpg,1,x,\r\nmale/both.jpg,,,0.25\r\n",
        "utf-8-sig",
    )
    assert read_label_file(path, KNOWN).values == {
        "mouth": {("female", "a"): 1.0},
        "head": {("male", "both"): 0.25},
    }
    assert read_label_file(path, KNOWN, "head").values == {"head": {("male", "both"): 0.25}}


def test_a_rating_of_1_to_5_stars_is_read_in_quarters(tmp_path):
    lines = [
        {
            "image": "a.jpg",
            "id": n,
            "mouth": [{"rating": n}],
            "created_at": f"2024-01-0{n}T00:00:00Z",
        }
        for n in range(1, 6)
    ]
    for n, value in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        assert read_label_file(write(tmp_path / "m.json", json.dumps(lines[n])), KNOWN).values == {
            "mouth": {("female", "a"): value}
        }


def test_a_control_of_another_name_is_read_as_the_given_attribute(tmp_path):
    path = write(
        tmp_path / "m.json",
        json.dumps([{"image": "a.jpg", "id": 1, "smile": "0.5", "annotator": 1}]),
    )
    assert read_label_file(path, KNOWN, "mouth").values == {"mouth": {("female", "a"): 0.5}}
    with pytest.raises(
        ContractError, match=r"smile is none of eyes, mouth, .* say with --attribute which it is"
    ):
        read_label_file(path, KNOWN)
    path = write(
        tmp_path / "m.json", json.dumps([{"image": "a.jpg", "id": 1, "smile": "0.5", "teeth": "1"}])
    )
    with pytest.raises(
        ContractError, match="there is no mouth among smile, teeth; rename the one that is meant"
    ):
        read_label_file(path, KNOWN, "mouth")


def test_a_picture_under_another_key_is_found_by_its_ending(tmp_path):
    record = {
        "photo": "/data/upload/1/ab12cd34-a.jpg",
        "source": "web",
        "id": 1,
        "mouth": [{"number": 1}],
    }
    assert read_label_file(write(tmp_path / "m.json", json.dumps([record])), KNOWN).values == {
        "mouth": {("female", "a"): 1.0}
    }
    with pytest.raises(
        ContractError,
        match=(
            r"m\.json, task 1: 2 of photo, other, .* name a picture; call the one that is meant"
            r" image"
        ),
    ):
        read_label_file(
            write(
                tmp_path / "m.json",
                json.dumps([{"photo": "a.jpg", "other": "b.png", "id": 1, "mouth": "1"}]),
            ),
            KNOWN,
        )


@pytest.mark.parametrize("value", ["1.5", "-0.1", "nan", "open", "50%", "0,5,5"])
def test_an_invalid_value_is_named_with_row_and_remedy(tmp_path, value):
    path = write(tmp_path / "l.csv", f'file,value\na.jpg,1\nmale/both.jpg,"{value}"\n')
    with pytest.raises(
        ContractError,
        match=rf"l\.csv, line 3: value is '{value}'; it must be 0 to 1, or a rating of 1 to 5",
    ):
        read_label_file(path, KNOWN, "mouth")


@pytest.mark.parametrize(
    "value",
    [
        {"number": 2},
        {"number": True},
        {"rating": 0},
        {"rating": 6},
        {"choices": ["open"]},
        {"choices": ["0", "1"]},
        {"text": ["1"]},
    ],
)
def test_an_invalid_result_is_named_with_its_task(tmp_path, value):
    wrong = task("a.jpg")
    wrong["id"] = 12
    wrong["annotations"][0]["result"][0]["value"] = value
    with pytest.raises(
        ContractError,
        match=r"tasks\.json, task 12: mouth is .*; it must be 0 to 1, or a rating of 1 to 5",
    ):
        read_tasks(tmp_path, task("male/both.jpg"), wrong)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "file,value\na.jpg,1\nfemale/a.png,0\n",
            "line 3: mouth is 0 for female a, but line 2 says 1; keep one of the two",
        ),
        ("file,value\na.jpg\n", "line 2: 1 fields, 2 expected"),
        (
            "file,value\na, b.jpg,1\n",
            "line 2: more than 2 fields; put a name that has a comma in quotes",
        ),
        (
            "name,value\na.jpg,1\n",
            (
                "line 1: the columns are name, value; there must be gender,img_id,path,value, or"
                " file,value"
            ),
        ),
        ("file,value\n", "there is no label of mouth in it; label some images first"),
        ("", "line 1: the columns are"),
        ('file,value\n"a.jpg,1\n', "line 2: not a CSV row"),
        ('[{"id": 1,\n "data": }]', r"line 2: not JSON \(Expecting value\); export it again"),
        ("[7]", "item 1: not a task"),
        (
            '[{"id": 4, "data": {"image": "a.jpg"}, "annotations": [7]}]',
            "task 4: annotation 7 is only a number; export it with whole",
        ),
        (
            '[{"id": 4, "data": {"image": "a.jpg"}, "annotations": []}]',
            "there is no label of mouth in it",
        ),
        ("[]", "there is no label"),
        ('[{"id": 4, "data": {"image": "a.jpg"}, "annotations": 5}]', "there is no label"),
        (
            '[{"id": 4, "data": {"image": "a.jpg"}, "annotations": [{"result": [3]}]}]',
            "there is no label",
        ),
        (
            '[{"id": 4, "data": {"image": ["a.jpg"]}, "annotations": [{"result": []}]}]',
            "task 4: 0 of image name a picture",
        ),
        ("file|value\na.jpg|1\n", r"line 1: the columns are file\|value"),
        (
            '[{"id": 4, "image": "a.jpg", "mouth": "1", "created_at": "yesterday"}]',
            "task 4: 'yesterday' is not a time",
        ),
        ("gender,img_id,path,value\nfemale,0,a.jpg,2\n", "line 2: column value is '2'"),
    ],
)
def test_a_malformed_file_is_named_with_row_and_remedy(tmp_path, text, complaint):
    path = write(tmp_path / "labels", text)
    with pytest.raises(ContractError, match=complaint) as raised:
        read_label_file(path, KNOWN, "mouth")
    assert str(raised.value).startswith(str(path))


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    with pytest.raises(ContractError, match="not UTF-8"):
        read_label_file(
            write(tmp_path / "l.csv", "file,value\n얼굴.jpg,1\n", "cp949"), KNOWN, "mouth"
        )


def test_many_broken_rows_are_listed_together(tmp_path):
    path = write(tmp_path / "l.csv", "file,value\n" + "a.jpg,x\n" * 100)
    with pytest.raises(ContractError) as raised:
        read_label_file(path, KNOWN, "mouth")
    assert str(raised.value).splitlines()[-1] == "… and 80 more"


def test_a_contract_csv_is_recognised_by_its_columns_and_its_name(tmp_path):
    text = (
        "gender,img_id,path,value\r\nfemale,0,dataset\\resized\\a.png,0.5\r\n"
        "male,1,dataset/resized/gone.png,1.0\r\n"
    )
    found = read_label_file(
        write(tmp_path / "train_output_hair_color.csv", text, "utf-8-sig"), KNOWN
    )
    assert found.values == {"hair_color": {("female", "a"): 0.5}}
    assert found.no_such_image == {"hair_color": ["gone"]}
    other = write(tmp_path / "labels.csv", text)
    assert read_label_file(other, KNOWN, "eyes").values == {"eyes": {("female", "a"): 0.5}}
    with pytest.raises(
        ContractError,
        match=r"labels\.csv: its name does not say which value it holds; .* or add --attribute",
    ):
        read_label_file(other, KNOWN)
    with pytest.raises(
        ContractError,
        match="its name says hair_color, not eyes; rename it, or leave out --attribute",
    ):
        read_label_file(tmp_path / "train_output_hair_color.csv", KNOWN, "eyes")


def test_the_first_runs_labels_survive_every_format(first_run_tables, tmp_path):
    found = {}
    for attribute in ATTRIBUTES:
        path = first_run_tables / "hand_labels" / f"train_output_{attribute}.csv"
        with path.open(encoding="utf-8") as f:
            keys = [(row["gender"], Path(row["path"]).stem) for row in csv.DictReader(f)]
        known = {sex: {s for g, s in keys if g == sex} for sex in ("female", "male")}
        found |= read_label_file(path, known).values
        assert len(found[attribute]) == 2000
    images = {(g, s): f"original/ThisPersonDoesNotExist/{g.title()}/{s}.png" for g, s in keys}
    for writer in (plain_csv, label_studio_json, label_studio_csv):
        assert (
            read_label_file(write(tmp_path / "out", writer(found, images)), known).values == found
        )


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "image",
    [
        "{name}.jpg",
        "female/{name}.png",
        "/data/local-files/?d=original/ThisPersonDoesNotExist/Female/{quoted}.jpg",
        "https://example.org/{quoted}.jpg",
        "/data/upload/3/0a1b2c3d-{stored}.jpg",
    ],
)
def test_an_image_is_found_in_either_unicode_spelling_of_its_name(tmp_path, form, image):
    known, name = "\xe9 \uac00", unicodedata.normalize(form, "\xe9 \uac00")
    # as Django's get_valid_filename stores an upload
    stored = re.sub(r"[^-\w.]", "", name.replace(" ", "_"))
    path = tmp_path / "mouth.csv"
    path.write_text(
        f"file,value\n{image.format(name=name, quoted=quote(name), stored=stored)},0.5\n",
        encoding="utf-8",
    )
    read = read_label_file(path, {"female": {known, "other"}, "male": set()}, "mouth")
    assert read.values == {"mouth": {("female", known): 0.5}}


def test_an_uploaded_name_without_accents_means_first_the_image_of_that_name(tmp_path):
    path = tmp_path / "mouth.csv"
    path.write_text("file,value\n0a1b2c3d-cafe.jpg,0.5\n", encoding="utf-8")
    read = read_label_file(path, {"female": {"caf\xe9", "cafe"}, "male": set()}, "mouth")
    assert read.values == {"mouth": {("female", "cafe"): 0.5}}


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("a.json", '[{"image": "a.jpg", "mouth": 0.5, "mouth": 0.75}]', "begins with {.*a.jpg.* "),
        (
            "a.json",
            '[{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"result": [{"from_name":'
            ' "mouth", "value": {"number": 0.5, "number": 0.75}}]}]}]',
            'begins with {"number": 0.5 ',
        ),
        (
            "a.csv",
            'annotation_id,image,mouth\n1,a.jpg,"[{""number"": 0.5, ""number"": 0.75}]"\n',
            'line 2: .*begins with {"number": 0.5 ',
        ),
    ],
)
def test_two_values_of_one_key_are_refused(tmp_path, name, text, where):
    path = write(tmp_path / name, text)
    key = r"'(mouth|number)' twice \(0.5 and 0.75\); keep one of the two"
    with pytest.raises(ContractError, match=f"{where}has the key {key}") as raised:
        read_label_file(path, {"female": {"a"}, "male": set()})
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_a_merge_conflict_in_json_is_named(tmp_path):
    text = '[\n<<<<<<< HEAD\n{"image": "a.jpg", "mouth": 0.5}\n=======\n>>>>>>> other\n]\n'
    with pytest.raises(ContractError, match="line 2: a merge conflict"):
        read_label_file(write(tmp_path / "a.json", text), {"female": {"a"}, "male": set()})
