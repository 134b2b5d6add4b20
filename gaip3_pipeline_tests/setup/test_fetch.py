"""Downloads from a stand-in for Kaggle on loopback; no other host is contacted."""

import json
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.setup.fetch import ATTEMPTS, DATASETS, FetchError, credentials, fetch
from gaip3_pipeline_tests.web.kaggle import KEY, LICENCE, USER, Kaggle, archive, serving

D1, D2 = (dataset.handle for dataset in DATASETS)
MIB = 1024 * 1024
EXPECTED = {"d1": 4, "d2_female": 3, "d2_male": 2}
FILES = {
    "original/thispersondoesnotexist.10k": ["00000.jpg", "가나 다.jpg", "smile 😀.PNG", "c.webp"],
    "original/ThisPersonDoesNotExist/Female": ["a 1.jpg", "b.jpg", "c.jpg"],
    "original/ThisPersonDoesNotExist/Male": ["a 1.jpg", "b.jpg"],
}


def content(folder: str, name: str) -> bytes:
    """0.6 to 1.2 MB: kagglehub writes, and so resumes, in steps of 1 MiB."""
    return f"{folder}/{name} ".encode() * 20_000


def packed(*folders: str, above: str = "") -> bytes:
    files = {
        f"{above}{folder.removeprefix('original/')}/{name}": content(folder, name)
        for folder in folders
        for name in FILES[folder]
    }
    return archive({"readme.txt": b"about these pictures", **files})


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kaggle]:
    folders = list(FILES)
    stand_in = Kaggle({D1: packed(folders[0]), D2: packed(*folders[1:])})
    with serving(stand_in):
        for name in (
            "no_proxy",
            "NO_PROXY",
            "KAGGLEHUB_CACHE",
            "KAGGLE_API_TOKEN",
            "KAGGLE_KERNEL_RUN_TYPE",
        ):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, stand_in.url)
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "home" / ".kaggle"))
        monkeypatch.setenv("KAGGLE_USERNAME", USER)
        monkeypatch.setenv("KAGGLE_KEY", KEY)
        # To name its caller to Kaggle, kagglehub looks through all modules in each request. Those
        # of other tests make this most of the time.
        monkeypatch.setattr("inspect.stack", lambda context=1: [])
        yield stand_in
    assert stand_in.hosts <= {"localhost"}


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return DataRoot(tmp_path / "데이터 root")


def fetched(root: DataRoot) -> dict[str, bytes]:
    return {
        p.relative_to(root.path).as_posix(): p.read_bytes()
        for p in (root.path / "original").rglob("*")
        if p.is_file()
    }


WHOLE = {
    f"{folder}/{name}": content(folder, name) for folder, names in FILES.items() for name in names
}


def test_both_sets_arrive_in_the_contracts_folders_with_licence_and_counts(
    kaggle: Kaggle, root: DataRoot
) -> None:
    said: list[str] = []
    report = fetch(root, said.append, EXPECTED)
    assert fetched(root) == WHOLE
    assert {p.image_set.id: (p.new, p.found) for p in report} == {
        "d1": (4, 4),
        "d2_female": (3, 3),
        "d2_male": (2, 2),
    }
    assert said.count(f"Licence: {LICENCE}") == 2
    assert "original/ThisPersonDoesNotExist/Male: 2 images (2 new, 0 were there)" in said
    assert not root.downloads.exists()


def test_a_complete_set_is_not_downloaded_again(kaggle: Kaggle, root: DataRoot) -> None:
    fetch(root, str, EXPECTED)
    asked = len(kaggle.ranges)
    report = fetch(root, str, EXPECTED)
    assert len(kaggle.ranges) == asked
    assert [p.kept for p in report] == [4, 3, 2]


def test_a_download_that_is_cut_off_is_continued(kaggle: Kaggle, root: DataRoot) -> None:
    kaggle.cut_after = [MIB + 50_000, MIB + 20]
    said: list[str] = []
    fetch(root, said.append, EXPECTED)
    assert fetched(root) == WHOLE
    assert [r for r in kaggle.ranges if r] == [f"bytes={MIB}-", f"bytes={2 * MIB}-"]
    assert [line for line in said if "going on" in line] == [
        "The connection broke after 1.0 MB (1.0 new); going on from there.",
        "The connection broke after 2.1 MB (1.0 new); going on from there.",
    ]


def test_a_connection_that_keeps_breaking_is_an_error_and_the_next_call_continues(
    kaggle: Kaggle, root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaip3_pipeline.setup.fetch.PAUSE", 0.01)
    kaggle.cut_after = [MIB + 1] + [0] * ATTEMPTS
    with pytest.raises(FetchError, match="run gaip3 fetch again to continue"):
        fetch(root, str, EXPECTED)
    assert fetched(root) == {}
    kaggle.cut_after = []
    kaggle.ranges.clear()
    fetch(root, str, EXPECTED)
    assert kaggle.ranges[:2] == [None, f"bytes={MIB}-"]
    assert fetched(root) == WHOLE


def test_an_archive_that_unpacks_one_folder_deeper_is_understood(
    kaggle: Kaggle, root: DataRoot
) -> None:
    folders = list(FILES)
    kaggle.archives = {
        D1: packed(folders[0], above="archive/"),
        D2: packed(*folders[1:], above="archive/inner/"),
    }
    fetch(root, str, EXPECTED)
    assert fetched(root) == WHOLE


def test_an_unexpected_count_is_reported_with_both_numbers(kaggle: Kaggle, root: DataRoot) -> None:
    said: list[str] = []
    fetch(root, said.append)
    assert (
        "original/thispersondoesnotexist.10k: 4 images (4 new, 0 were there); expected 10,000:"
        " 9,996 missing" in said
    )
    fetch(DataRoot(root.path), said.append, EXPECTED | {"d1": 3})
    assert any("4 images (0 new, 4 were there); expected 3: 1 more" in line for line in said)


def test_existing_files_are_kept_whatever_their_content(kaggle: Kaggle, root: DataRoot) -> None:
    folder = root.original(IMAGE_SETS[0])
    folder.mkdir(parents=True)
    (folder / "00000.jpg").write_bytes(b"mine")
    (folder / "c.webp").write_bytes(content("original/thispersondoesnotexist.10k", "c.webp"))
    report = fetch(root, str, EXPECTED)
    assert (report[0].new, report[0].kept, report[0].different) == (2, 1, ("00000.jpg",))
    assert "1 of your files differ" in str(report[0])
    assert (folder / "00000.jpg").read_bytes() == b"mine"


def test_a_file_that_is_there_in_another_unicode_spelling_is_kept(
    kaggle: Kaggle, root: DataRoot
) -> None:
    folder, name = root.original(IMAGE_SETS[0]), "가나 다.jpg"
    folder.mkdir(parents=True)
    own = folder / unicodedata.normalize("NFD", name)
    own.write_bytes(content("original/thispersondoesnotexist.10k", name))
    report = fetch(root, str, EXPECTED)
    assert (report[0].new, report[0].kept, report[0].found) == (3, 1, 4)


def test_a_damaged_archive_is_removed_and_named(kaggle: Kaggle, root: DataRoot) -> None:
    good = kaggle.archives[D1]
    kaggle.archives[D1] = b"<html>out of order</html>" * 100
    with pytest.raises(FetchError, match="arrived damaged and was removed"):
        fetch(root, str, EXPECTED)
    kaggle.archives[D1] = good
    fetch(root, str, EXPECTED)
    assert fetched(root) == WHOLE


def test_refused_credentials_are_named_with_the_remedy(
    kaggle: Kaggle, root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_KEY", "wrong")
    with pytest.raises(
        FetchError,
        match=(
            r"refuses the credentials from KAGGLE_USERNAME and KAGGLE_KEY"
            r" .*\(401\).*kaggle\.com/settings"
        ),
    ):
        fetch(root, str, EXPECTED)


def test_missing_credentials_are_an_error_only_if_kaggle_requires_them(
    kaggle: Kaggle, root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_USERNAME")
    assert credentials() is None
    with pytest.raises(
        FetchError,
        match=r"requires credentials .*~/\.kaggle/access_token.* KAGGLE_API_TOKEN.*kaggle\.json",
    ):
        fetch(root, str, EXPECTED)
    kaggle.public = True
    fetch(root, str, EXPECTED)
    assert fetched(root) == WHOLE


def test_credentials_are_taken_from_kaggle_json(
    kaggle: Kaggle, root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_USERNAME")
    file = tmp_path / "home" / ".kaggle" / "kaggle.json"
    file.parent.mkdir(parents=True)
    file.write_text("{not json")
    with pytest.raises(FetchError, match=r"Invalid Kaggle credentials file .*Generate New Token"):
        fetch(root, str, EXPECTED)
    file.write_text(json.dumps({"username": USER, "key": KEY}))
    fetch(root, str, EXPECTED)
    assert fetched(root) == WHOLE


def test_a_page_in_place_of_an_answer_is_named_without_the_names_of_errors(
    kaggle: Kaggle, root: DataRoot
) -> None:
    for status, said in (
        (200, r"A page came instead of Kaggle's answer"),
        (403, r"refuses access .*KAGGLE_KEY \(403\): open .* and accept its terms"),
        (503, r"answered 503"),
    ):
        kaggle.answer = status, b"<html>log in to this network</html>"
        with pytest.raises(FetchError, match=said) as refused:
            fetch(root, str, EXPECTED)
        assert "Error" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("access_token", b"KGAT_abc\n", "access_token"),
        ("access_token", b" \n", None),
        ("access_token", b"\xff\xfe\x00", FetchError),
        ("access_token", None, FetchError),
        ("kaggle.json", b"KGAT_abc", FetchError),
        ("kaggle.json", b"5", FetchError),
        ("kaggle.json", b'{"username": "portrait"}', FetchError),
        ("kaggle.json", '{"username": "홍길동", "key": "k"}'.encode(), FetchError),
        ("kaggle.json", b'{"username": "portrait", "key": null}', FetchError),
        ("access_token", "“KGAT_abc”".encode(), FetchError),
        ("access_token", b"KGAT_abc\nKGAT_def\n", FetchError),
    ],
)
def test_files_with_credentials_are_taken_or_refused_with_the_remedy(
    kaggle: Kaggle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes | None,
    found: str | type[FetchError] | None,
) -> None:
    monkeypatch.delenv("KAGGLE_USERNAME")
    file = tmp_path / "home" / ".kaggle" / name
    file.parent.mkdir(parents=True)
    file.mkdir() if content is None else file.write_bytes(content)
    if found is not FetchError:
        assert credentials() == found
        return
    with pytest.raises(FetchError, match=r"Generate New Token.*access_token") as refused:
        credentials()
    assert not re.search(r"Errno|codec|iterable", str(refused.value))


def test_a_token_in_a_variable_may_end_in_a_line_break_and_is_never_shown(
    kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_abc\n")
    assert credentials() == "KAGGLE_API_TOKEN"
    assert os.environ["KAGGLE_API_TOKEN"] == "KGAT_abc"
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_" + "secret" * 60)
    with pytest.raises(FetchError, match="KAGGLE_API_TOKEN cannot be read") as refused:
        credentials()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("KAGGLE_USERNAME", "홍길동"),
        ("KAGGLE_KEY", "비밀"),
        ("KAGGLE_KEY", "secret\tkey"),
        ("KAGGLE_API_TOKEN", "토큰"),
        ("KAGGLE_API_TOKEN", "“KGAT”"),
        ("KAGGLE_API_TOKEN", "KGAT\nKGAT"),
        ("KAGGLE_API_TOKEN", "KGAT\udcff"),
    ],
)
def test_credentials_that_no_request_can_hold_are_named_and_not_shown(
    kaggle: Kaggle, root: DataRoot, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(FetchError, match=f"^{name} is not one line of ASCII text, .*Token") as e:
        fetch(root)
    assert not any(part in str(e.value) for part in ("KGAT", "토큰", "비밀", "secret", "홍길동"))


@pytest.mark.parametrize(
    "proxy", ["http://홍:길@127.0.0.1:9", "http://a..b:9", "http://127.0.0.1:port", "nosuch://a"]
)
def test_a_proxy_that_is_no_url_is_named(
    kaggle: Kaggle, root: DataRoot, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(FetchError, match="ALL_PROXY is not of the form http://host:port"):
        fetch(root)


def test_a_data_set_that_is_gone_is_named(kaggle: Kaggle, root: DataRoot) -> None:
    del kaggle.archives[D1]
    with pytest.raises(
        FetchError, match=rf"no data set https://www\.kaggle\.com/datasets/{D1} \(404\)"
    ):
        fetch(root, str, EXPECTED)
