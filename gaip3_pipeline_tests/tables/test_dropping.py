"""The list of dropped originals, whatever the Unicode spelling of their names."""

import unicodedata

import pytest

from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.tables.dropping import change_dropped
from gaip3_pipeline.tables.duplicates import read_dropped


@pytest.mark.parametrize(("on_disk", "named"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_an_original_is_dropped_and_brought_back_in_either_spelling(tmp_path, on_disk, named):
    root, d1 = DataRoot(tmp_path), IMAGE_SETS[0]
    there, said = (unicodedata.normalize(form, "\xe9\uac00") for form in (on_disk, named))
    root.original(d1).mkdir(parents=True)
    (root.original(d1) / f"{there}.jpg").touch()
    path = f"original/{d1.original}/{there}.jpg"
    assert change_dropped(root, [f"resized/10k-images/{said}.jpg"], "blurred") == [path]
    key = (d1.id, unicodedata.normalize("NFC", there))
    assert read_dropped(root.dropped) == {key: "blurred"}
    assert change_dropped(root, [f"original/{d1.original}/{said}.jpg"], "", undo=True) == [path]
    assert read_dropped(root.dropped) == {}
