"""Files appear whole or not at all."""

import errno
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from gaip3_pipeline.tables.files import (
    create_atomically,
    hdf5_size,
    remove_abandoned,
    write_bytes_atomically,
    writing,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.csv"
    write_bytes_atomically(path, b"old")
    with pytest.raises(ZeroDivisionError), writing(path) as temporary:
        temporary.write_bytes(b"half") and 1 / 0
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_file_that_has_no_room_on_its_disk_is_not_begun(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(OSError, match="No space left") as caught, writing(path, 2**60):
        pytest.fail("it was begun")
    assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == []


def test_a_file_of_hdf5_takes_no_more_room_than_it_is_given(tmp_path):
    import h5py

    arrays = [np.random.default_rng(0).random(n) for n in (1, 3, 100, 10**5)] * 20
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i, array in enumerate(arrays):
            file[f"layers/layer_{i}/vars/0"] = array
    assert sum(a.nbytes for a in arrays) < (tmp_path / "a.h5").stat().st_size <= hdf5_size(arrays)


def test_a_write_makes_a_new_inode_so_that_hard_links_keep_their_content(tmp_path):
    path, link = tmp_path / "a.jpg", tmp_path / "link.jpg"
    write_bytes_atomically(path, b"old")
    os.link(path, link)
    write_bytes_atomically(path, b"new")
    assert (path.read_bytes(), link.read_bytes()) == (b"new", b"old")


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_stays(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom gaip3_pipeline.tables.files import"
        " temporary_folder, writing\nhere = Path(sys.argv[1])\nwith writing(here / 'a.csv'),"
        " temporary_folder(here) as folder:\n    (folder / 'shard.tar').write_bytes(b'half')\n"
        "    print('ready', flush=True)\n    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    assert remove_abandoned([tmp_path]) == 0
    with writing(tmp_path / "b.csv") as mine:
        process.kill()
        process.wait()
        process.stdout.close()
        elsewhere = mine.with_name(mine.name.replace(socket.gethostname(), "another-host"))
        elsewhere.touch()
        assert remove_abandoned([tmp_path]) == 2
        assert set(os.listdir(tmp_path)) == {mine.name, elsewhere.name}
    assert set(os.listdir(tmp_path)) == {"b.csv", elsewhere.name}


def test_a_file_that_is_there_is_not_created_again(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a.json"
    create_atomically(path, b"first")
    with pytest.raises(FileExistsError):
        create_atomically(path, b"second")
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(FileExistsError):
        create_atomically(path, b"second")
    create_atomically(tmp_path / "b.json", b"without links")
    assert path.read_bytes() == b"first"
    assert (tmp_path / "b.json").read_bytes() == b"without links"
    assert sorted(os.listdir(tmp_path)) == ["b.json", "new"]


def refuse(*paths):
    raise PermissionError(errno.EPERM, "this file system knows no hard links")
