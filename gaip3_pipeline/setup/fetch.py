"""The two public data sets from Kaggle into a data root's ``original/``.

kagglehub handles credentials, versions and the resuming of downloads. This module shows the licence
and the size first, puts complete pictures where the contract requires them, and checks their
number."""

import errno
import filecmp
import json
import os
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaip3_pipeline.layout import IMAGE_SETS, DataRoot, ImageSet, downloads
from gaip3_pipeline.tables.files import sync_folder, writing
from gaip3_pipeline.tables.image_files import list_images
from gaip3_pipeline.tables.names import existing

Say = Callable[[str], None]
# images in the sets at the time of the first run
EXPECTED = {"d1": 10_000, "d2_female": 3_860, "d2_male": 3_013}
ATTEMPTS = 5  # of a download that is cut off; each continues where the last one ended
PAUSE = 1.0  # seconds before the third attempt; each further pause is longer by as much
# disk space for the archive and its content, as a multiple of the size that Kaggle reports (JPEGs
# do not compress)
UNPACKED = 2.1
CREDENTIALS = (
    "create a token at https://www.kaggle.com/settings/api (Generate New Token) and put it into"
    " ~/.kaggle/access_token or the variable KAGGLE_API_TOKEN; a legacy key works too, in"
    " ~/.kaggle/kaggle.json, or in KAGGLE_USERNAME and KAGGLE_KEY"
)
_NO_PROXY = " (HTTPS_PROXY or ALL_PROXY is not of the form http://host:port in ASCII)"
_CREDENTIAL_VARIABLES = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY")


class FetchError(RuntimeError):
    """A download failed; the message is one line with the remedy. The downloaded part is kept, and
    the next attempt continues from it."""


@dataclass(frozen=True)
class Dataset:
    """A data set on Kaggle and the sets of images that it holds."""

    handle: str
    image_sets: tuple[ImageSet, ...]

    @property
    def page(self) -> str:
        return f"https://www.kaggle.com/datasets/{self.handle}"


@dataclass(frozen=True)
class Placed:
    """The result for one set of images."""

    image_set: ImageSet
    new: int
    kept: int  # were there already with the same bytes
    different: tuple[str, ...]  # were there already with other bytes, and stay
    found: int  # images in the folder now
    expected: int

    def __str__(self) -> str:
        """One line, with both numbers if the count is not the expected one."""
        line = (
            f"original/{self.image_set.original}: {self.found:,} images ({self.new:,} new,"
            f" {self.kept:,} were there)"
        )
        if self.found != self.expected:
            line += (
                f"; expected {self.expected:,}: {abs(self.found - self.expected):,}"
                f" {'missing' if self.found < self.expected else 'more'}"
            )
        if self.different:
            line += (
                f"; {len(self.different):,} of your files differ from the downloaded ones and were"
                f" kept, such as {self.different[0]}"
            )
        return line


_BY_ID = {image_set.id: image_set for image_set in IMAGE_SETS}
DATASETS = (
    Dataset("almightyj/person-face-dataset-thispersondoesnotexist", (_BY_ID["d1"],)),
    Dataset("bwandowando/all-these-people-dont-exist", (_BY_ID["d2_female"], _BY_ID["d2_male"])),
)


def fetch(root: DataRoot, say: Say = print, expected: dict[str, int] = EXPECTED) -> list[Placed]:
    """Download what ``root`` lacks; a set whose folder holds the ``expected`` number of images is
    left alone.

    A download that was cut off is continued, also by another call. Existing files are never
    replaced. Raises :class:`FetchError`; an unexpected number of images is only reported."""
    report = []
    for dataset in DATASETS:
        counts = {s.id: count_images(root.original(s)) for s in dataset.image_sets}
        if all(counts[s.id] == expected[s.id] for s in dataset.image_sets):
            done = [
                Placed(s, 0, counts[s.id], (), counts[s.id], expected[s.id])
                for s in dataset.image_sets
            ]
        else:
            done = _fetch(dataset, root, say, expected)
        for placed in done:
            say(str(placed))
        report += done
    return report


def count_images(folder: Path) -> int:
    """The number of images in ``folder`` and its subfolders."""
    return len(list_images(folder))


def credentials() -> str | None:
    """The name of the variable or file in which kagglehub finds credentials; None without
    credentials. Raises :class:`FetchError` for invalid ones."""
    for name in _CREDENTIAL_VARIABLES:  # a line break at the end is no valid header
        if name in os.environ:
            os.environ[name] = os.environ[name].strip()
    from kagglehub.config import get_kaggle_credentials
    from kagglesdk.kaggle_env import get_access_token_from_env

    try:
        found = get_kaggle_credentials()
    except OSError as error:
        # the file name of an error is not shown if it may be a token
        where = "KAGGLE_API_TOKEN" if os.environ.get("KAGGLE_API_TOKEN") else error.filename
        raise FetchError(f"{where} cannot be read ({error.strerror}): {CREDENTIALS}") from error
    except (ValueError, TypeError) as error:
        ours = "Kaggle credentials file" in str(error)  # else Python's, about the content
        what = error if ours else "Invalid Kaggle credentials file in ~/.kaggle"
        raise FetchError(f"{what}: {CREDENTIALS}") from error
    if not found:
        return None
    if found.api_key:
        used = {get_access_token_from_env()[1] or "KAGGLE_API_TOKEN": [found.api_key]}
    elif os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        used = {"KAGGLE_USERNAME": [found.username], "KAGGLE_KEY": [found.key]}
    else:
        used = {"kaggle.json": [found.username, found.key]}
    for name, texts in used.items():
        # a request sends them in a header; none is shown, since it may be a secret
        if not all(isinstance(t, str) and t and t.isascii() and t.isprintable() for t in texts):
            raise FetchError(
                f"{name} is not one line of ASCII text, as Kaggle's credentials are: {CREDENTIALS}"
            )
    return " and ".join(used)


def _fetch(dataset: Dataset, root: DataRoot, say: Say, expected: dict[str, int]) -> list[Placed]:
    found = credentials()
    with _cache(root) as (cache, own), _clear_errors(dataset, found, root):
        about = _describe(dataset)
        size = about.total_bytes or 0
        say(f"{dataset.page} (version {about.current_version_number}, {size / 1e9:.2f} GB)")
        say(
            f"Licence: {about.license_name}"
            if about.license_name
            else f"Licence: not given by Kaggle's interface; read it on {dataset.page}"
        )
        _need_space(cache, size * UNPACKED)
        unpacked = _download(dataset, about.current_version_number, cache, say)
        placed = [_place(unpacked, root, s, expected[s.id]) for s in dataset.image_sets]
        if own:
            folder = downloads(cache, dataset.handle)
            shutil.rmtree(folder)
            # a folder that is not empty holds another data set that is not complete yet
            with suppress(OSError):
                os.removedirs(folder.parent)
        return placed


def _describe(dataset: Dataset) -> Any:
    """Kaggle's description of the data set, with ``total_bytes``, ``license_name`` and
    ``current_version_number``."""
    from kagglehub.clients import build_kaggle_client
    from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest

    request = ApiGetDatasetRequest()
    request.owner_slug, request.dataset_slug = dataset.handle.split("/")
    with build_kaggle_client() as client:
        return client.datasets.dataset_api_client.get_dataset(request)


def _download(dataset: Dataset, version: int, cache: Path, say: Say) -> Path:
    """Download the data set and return the folder with its content. A damaged archive is removed,
    so that the next attempt starts from the beginning."""
    import kagglehub
    import requests
    from kagglehub.exceptions import DataCorruptionError

    archive = downloads(cache, dataset.handle) / f"{version}.archive"
    for attempt in range(1, ATTEMPTS + 1):
        before = archive.stat().st_size if archive.exists() else 0
        try:
            return Path(kagglehub.dataset_download(f"{dataset.handle}/versions/{version}"))
        except (
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ConnectionError,
            requests.exceptions.Timeout,
        ):
            here = archive.stat().st_size if archive.exists() else 0
            if attempt == ATTEMPTS:
                raise
            say(
                f"The connection broke after {here / 1e6:,.1f} MB ({(here - before) / 1e6:,.1f}"
                " new); going on from there."
            )
            time.sleep(PAUSE * (attempt - 1))
        except (
            DataCorruptionError,
            zipfile.BadZipFile,
            tarfile.TarError,
            zlib.error,
            ValueError,
            EOFError,
        ) as error:
            archive.unlink(missing_ok=True)
            raise FetchError(
                f"The archive of {dataset.handle} arrived damaged and was removed: run gaip3 fetch"
                " again"
            ) from error
    raise AssertionError("unreachable: the last attempt returns or raises")


def _place(unpacked: Path, root: DataRoot, image_set: ImageSet, expected: int) -> Placed:
    """Put the pictures of ``image_set`` where the contract requires them: as hard links if
    possible, else as copies."""
    target = root.original(image_set)
    target.mkdir(parents=True, exist_ok=True)
    new, kept, different = 0, 0, []
    for source in list_images(_folder_of(unpacked, image_set)):
        place = existing(target / source.name)
        if not place.exists():
            _link_or_copy(source, place)
            new += 1
        elif filecmp.cmp(source, place, shallow=False):
            kept += 1
        else:
            different.append(source.name)
    sync_folder(target)
    return Placed(image_set, new, kept, tuple(different), count_images(target), expected)


def _folder_of(unpacked: Path, image_set: ImageSet) -> Path:
    """The folder of a set in an unpacked archive, at any depth. The archive of a single set need
    not have such a folder."""
    name = Path(image_set.original).name.casefold()
    folders = sorted(
        (p for p in unpacked.rglob("*") if p.is_dir() and p.name.casefold() == name),
        key=lambda p: (-count_images(p), p),
    )
    if folders:
        return folders[0]
    if image_set.sex is None and count_images(unpacked):
        return unpacked
    raise FetchError(
        f"The archive has no folder {Path(image_set.original).name!r}: move its pictures from"
        f" {unpacked} into original/ yourself"
    )


def _link_or_copy(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise
        with writing(place) as temporary:
            shutil.copyfile(source, temporary)


@contextmanager
def _cache(root: DataRoot) -> Iterator[tuple[Path, bool]]:
    """The folder in which kagglehub keeps the archive and its content, and whether to remove it
    afterwards.

    It is inside the root unless the user names a cache, so that pictures can be hard links and need
    disk space only once."""
    named = os.environ.get("KAGGLEHUB_CACHE")
    cache = Path(named) if named else root.downloads
    cache.mkdir(parents=True, exist_ok=True)
    os.environ["KAGGLEHUB_CACHE"] = str(cache)
    try:
        yield cache, not named
    finally:
        if not named:
            del os.environ["KAGGLEHUB_CACHE"]


@contextmanager
def _clear_errors(dataset: Dataset, found: str | None, root: DataRoot) -> Iterator[None]:
    """Turn exceptions of kagglehub and requests into :class:`FetchError`, one line with the
    remedy."""
    import requests
    from kagglehub import exceptions
    from urllib3.exceptions import LocationParseError

    try:
        yield
    except requests.exceptions.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status == 403 and found:
            raise FetchError(
                f"Kaggle refuses access with the credentials from {found} (403): open"
                f" {dataset.page} with the same account and accept its terms, or {CREDENTIALS}"
            ) from error
        if status == 401 and found:
            raise FetchError(
                f"Kaggle refuses the credentials from {found} for {dataset.page} (401):"
                f" {CREDENTIALS}"
            ) from error
        if status in (401, 403):
            raise FetchError(
                f"Kaggle requires credentials for {dataset.page} ({status}): {CREDENTIALS}"
            ) from error
        if status == 404:
            raise FetchError(
                f"Kaggle has no data set {dataset.page} (404): it may have moved; put its pictures"
                " into original/ yourself"
            ) from error
        raise FetchError(f"Kaggle answered {status} for {dataset.page}: try again later") from error
    except (requests.exceptions.InvalidJSONError, json.JSONDecodeError) as error:
        raise FetchError(
            "A page came instead of Kaggle's answer, perhaps from a proxy or from the network's"
            " login: open https://www.kaggle.com in a browser, then run gaip3 fetch again"
        ) from error
    except requests.exceptions.RequestException as error:
        why = next((text for kind, text in _reasons() if isinstance(error, kind)), "")
        raise FetchError(
            f"Kaggle cannot be reached or the download was cut off{why}: run gaip3 fetch again to"
            " continue"
        ) from error
    except (UnicodeError, LocationParseError) as error:  # of a URL that requests does not check
        raise FetchError(
            f"Kaggle cannot be reached{_NO_PROXY}: run gaip3 fetch again to continue"
        ) from error
    except (
        exceptions.BackendError,
        exceptions.CredentialError,
        exceptions.NotFoundError,
        exceptions.UnauthenticatedError,
    ) as error:
        said = " ".join(str(error).split()) or "no such data set"
        raise FetchError(f"Kaggle refuses {dataset.page} ({said}): {CREDENTIALS}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FetchError(
                f"The disk of {root.path} is full: free some space and run gaip3 fetch again to"
                " continue"
            ) from error
        raise


def _reasons() -> tuple[tuple[type[Exception], str], ...]:
    """Errors of a connection whose cause lies in a setting of the user."""
    from requests import exceptions

    return (
        (exceptions.InvalidURL, _NO_PROXY),
        (exceptions.InvalidSchema, _NO_PROXY),
        (exceptions.ProxyError, " (the proxy of HTTPS_PROXY does not answer)"),
        (
            exceptions.SSLError,
            " (the certificate is not accepted: check the clock, SSL_CERT_FILE and"
            " REQUESTS_CA_BUNDLE)",
        ),
        (exceptions.Timeout, " (no answer in time)"),
    )


def _need_space(folder: Path, needed: float) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FetchError(
            f"{folder} has {free / 1e9:.1f} GB free and {needed / 1e9:.1f} GB are needed: free"
            " some space, or set KAGGLEHUB_CACHE to a folder on another disk"
        )
