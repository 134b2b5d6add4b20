"""The pictures of the label page as JPEG bytes: thumbnails, large views and an example of each
level.

No path comes from a request: callers look an image up by sex and stem among the root's originals.
Large views are decoded from the originals on demand, under the limits of the pipeline's own
decoding, and the last ones are kept in memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gaip3_pipeline.faces.painter import Face, paint
from gaip3_pipeline.imaging.decode import Target, decode
from gaip3_pipeline.imaging.processing import read_picture
from gaip3_pipeline.imaging.transform import encode_jpeg, resize
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import Images
from gaip3_pipeline.tables.names import stem_of

LARGE_HEIGHT = 512  # pixels; less for a smaller original
KEPT = 256  # pictures in memory, about 20 MB
QUALITY = 88


class Pictures:
    """JPEGs of one root's labelled sets. Safe to use from several threads."""

    def __init__(self, root: DataRoot, settings: Images) -> None:
        self._root, self._settings = root, settings
        self._large = threading.Lock()  # pictures of many megapixels are decoded one at a time
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    def thumbnail(self, gender: str, original: Path) -> bytes:
        """The resized image, or one made from the original if the pipeline has not made it yet.

        Raises :class:`~gaip3_pipeline.imaging.decode.UnusableImage`.
        """
        try:
            return self._root.resized_picture(gender, stem_of(original)).read_bytes()
        except FileNotFoundError:
            return self._keep(
                ("thumbnail", original, original.stat().st_mtime_ns),
                lambda: self._from_original(original, self._settings.height),
            )

    def large(self, original: Path) -> bytes:
        """The original cut as the pipeline cuts it, at most :data:`LARGE_HEIGHT` pixels high.

        Raises :class:`~gaip3_pipeline.imaging.decode.UnusableImage`, also for an original that is
        too large to decode."""
        return self._keep(
            ("large", original, original.stat().st_mtime_ns),
            lambda: self._from_original(original, LARGE_HEIGHT),
        )

    def painted(self, attribute: str, value: float) -> bytes:
        """A painted face whose ``attribute`` is exactly ``value``, for levels without a labelled
        photograph."""

        def make() -> bytes:
            size = self._settings.height
            cut, end = Target(size, size, self._settings.crop).columns(size)
            neutral = {"background": 0.6} if attribute != "background" else {}
            face = Face("female", 11, **{**neutral, attribute: value})
            return encode_jpeg(np.ascontiguousarray(paint(face, size)[:, cut:end]), QUALITY)

        return self._keep(("painted", attribute, value), make)

    def _from_original(self, path: Path, height: int) -> bytes:
        shape = self._settings.height, self._settings.width
        data, _ = read_picture(path, self._settings.max_pixels)
        picture = decode(
            data,
            path.name,
            _target(height, shape, self._settings.crop),
            self._settings.max_pixels,
            self._large,
        )
        return encode_jpeg(
            resize(picture, _target(min(height, picture.height), shape, self._settings.crop)),
            QUALITY,
        )

    def _keep(self, key: tuple[object, ...], make: Callable[[], bytes]) -> bytes:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return made


def _target(height: int, shape: tuple[int, int], crop: float) -> Target:
    """A target of ``height``, with the aspect ratio of ``shape`` (height, width)."""
    return Target(height, round(height * shape[1] / shape[0]), crop)
