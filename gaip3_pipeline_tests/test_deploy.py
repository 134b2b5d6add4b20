"""The set-up of a cluster's machines, rehearsed in a folder."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from gaip3_pipeline.layout import REPOSITORY

HEAD = ("--root", "/srv/gaip3", "--address", "10.0.0.1", "--network", "10.0.0.0/24")
WORKER = ("--root", "/srv/gaip3", "--address", "10.0.0.2", "--head", "10.0.0.1")


def set_up(role: str, into: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(REPOSITORY / "deploy" / "setup"), role, *words, "--into", str(into)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_head_gets_its_units_and_its_secrets_in_two_files_that_others_cannot_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "etc/postgresql/15/main").mkdir(parents=True)
    done = set_up("head", tmp_path, *HEAD)
    assert done.returncode == 0, done.stderr
    environment = tmp_path / "etc/gaip3/environment"
    token = tmp_path / "etc/gaip3/ray_token"
    lines = dict(line.split("=", 1) for line in environment.read_text().splitlines())
    password = lines["GAIP3_DAGSTER_DB"].split(":")[2].split("@")[0]
    assert len(password) == 48
    for file in (environment, token):
        assert stat.S_IMODE(file.stat().st_mode) & 0o007 == 0
    others = [p for p in tmp_path.rglob("*") if p.is_file() and p not in (environment, token)]
    assert len(others) >= 9
    for file in others:
        assert password not in file.read_text()
        assert token.read_text() not in file.read_text()
    assert password not in done.stdout


def test_a_second_set_up_keeps_the_password_and_the_token(tmp_path: Path) -> None:
    (tmp_path / "etc/postgresql/15/main").mkdir(parents=True)
    set_up("head", tmp_path, *HEAD)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    set_up("head", tmp_path, *HEAD)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_worker_needs_the_secrets_of_the_head(tmp_path: Path) -> None:
    done = set_up("worker", tmp_path, *WORKER)
    assert done.returncode == 2
    assert "copy it and ray_token from the head" in done.stderr
    set_up("head", tmp_path / "head", *HEAD)
    shutil.copytree(tmp_path / "head/etc/gaip3", tmp_path / "etc/gaip3", dirs_exist_ok=True)
    assert set_up("worker", tmp_path, *WORKER).returncode == 0
    unit = (tmp_path / "etc/systemd/system/gaip3-ray-worker.service").read_text()
    assert "--address=10.0.0.1:6379 --node-ip-address=10.0.0.2" in unit


def test_systemd_accepts_every_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze") or pytest.skip("needs systemd-analyze")
    set_up("head", tmp_path, *HEAD)
    set_up("worker", tmp_path, *WORKER)
    units = sorted((tmp_path / "etc/systemd/system").iterdir())
    assert len(units) == 8
    for unit in units:
        assert "@" not in unit.read_text(), unit.name
    done = subprocess.run(
        [analyze, "verify", "--man=no", *map(str, units)], capture_output=True, text=True
    )
    own = [line for line in done.stderr.splitlines() if "gaip3-" in line]
    # a program that is not installed is no fault of the unit
    assert [line for line in own if "is not executable" not in line] == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--root", "relative", *HEAD[2:]), "absolute path"),
        (("--root", "/srv/a b", *HEAD[2:]), "letters, digits"),
        (("--root", "/srv/x", "--address", "127.0.0.1", *HEAD[4:]), "other machines reach"),
        (("--root", "/srv/x", "--address", "10.0.0.1"), "--network"),
    ],
)
def test_wrong_words_are_one_line(tmp_path: Path, words: tuple[str, ...], reason: str) -> None:
    done = set_up("head", tmp_path, *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert reason in done.stderr
