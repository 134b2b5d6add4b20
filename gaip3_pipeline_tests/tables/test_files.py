"""Files appear whole or not at all."""

import os

import pytest

from gaip3_pipeline.tables.files import write_bytes_atomically, writing


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.csv"
    write_bytes_atomically(path, b"old")
    with pytest.raises(ZeroDivisionError), writing(path) as temporary:
        temporary.write_bytes(b"half") and 1 / 0
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_write_makes_a_new_inode_so_that_hard_links_keep_their_content(tmp_path):
    path, link = tmp_path / "a.jpg", tmp_path / "link.jpg"
    write_bytes_atomically(path, b"old")
    os.link(path, link)
    write_bytes_atomically(path, b"new")
    assert (path.read_bytes(), link.read_bytes()) == (b"new", b"old")
