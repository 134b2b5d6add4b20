"""The pictures of the label page as JPEG bytes: thumbnails, large views, the region in which a
value shows, and an example of each level.

No path comes from a request: callers look an image up by sex and stem among the root's originals.
Large views are decoded from the originals on demand, under the limits of the pipeline's own
decoding, and the last ones are kept in memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from gaip3_pipeline.faces.painter import Face, paint
from gaip3_pipeline.features.landmarks import find_parts
from gaip3_pipeline.features.regions import REGIONS, region_of
from gaip3_pipeline.imaging.decode import Target, decode
from gaip3_pipeline.imaging.processing import read_picture
from gaip3_pipeline.imaging.transform import encode_jpeg, resize
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import Images
from gaip3_pipeline.tables.names import stem_of

LARGE_HEIGHT = 512  # pixels; less for a smaller original
KEPT = 256  # pictures in memory, about 20 MB
DETAILED_HEIGHT = 2048  # pixels of the whole picture from which a region is cut, at most
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
            return self.small(original)

    def small(self, original: Path) -> bytes:
        """The original cut as the pipeline cuts it, at the height of a resized image. Raises
        :class:`~gaip3_pipeline.imaging.decode.UnusableImage`."""
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

    def region(self, attribute: str, original: Path) -> bytes:
        """The region of the original in which the value of ``attribute`` shows, in the original's
        own pixels as far as :data:`DETAILED_HEIGHT` allows; the large view if that is the whole
        picture. Raises as :meth:`large` does."""
        if attribute not in REGIONS:
            return self.large(original)
        return self._keep(
            ("region", attribute, original, original.stat().st_mtime_ns),
            lambda: _region(self._pixels(original, DETAILED_HEIGHT), attribute),
        )

    def fitting(self, picture: Path, width: int) -> bytes:
        """A JPEG that the pipeline made, scaled to at most ``width`` pixels."""

        def make() -> bytes:
            with Image.open(picture) as image:
                image.thumbnail((width, image.height))
                return encode_jpeg(np.asarray(image.convert("RGB")), QUALITY)

        return self._keep(("fitting", picture, picture.stat().st_mtime_ns, width), make)

    def painted(self, attribute: str, value: float, zoomed: bool = False) -> bytes:
        """A painted face whose ``attribute`` is exactly ``value``, for levels without a labelled
        photograph; ``zoomed``: its region."""

        def make() -> bytes:
            cut, end = Target(LARGE_HEIGHT, LARGE_HEIGHT, self._settings.crop).columns(LARGE_HEIGHT)
            neutral = {"background": 0.6} if attribute != "background" else {}
            face = Face("female", 11, **{**neutral, attribute: value})
            pixels = np.ascontiguousarray(paint(face, LARGE_HEIGHT)[:, cut:end])
            if zoomed and attribute in REGIONS:
                return _region(pixels, attribute)
            return encode_jpeg(pixels, QUALITY)

        return self._keep(("painted", attribute, value, zoomed), make)

    def _from_original(self, path: Path, height: int) -> bytes:
        return encode_jpeg(self._pixels(path, height), QUALITY)

    def _pixels(self, path: Path, height: int) -> np.ndarray:
        """The original, cut, and at most ``height`` pixels high."""
        shape = self._settings.height, self._settings.width
        data, _ = read_picture(path, self._settings.max_pixels)
        picture = decode(
            data,
            path.name,
            _target(height, shape, self._settings.crop),
            self._settings.max_pixels,
            self._large,
        )
        return resize(picture, _target(min(height, picture.height), shape, self._settings.crop))

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


def _region(pixels: np.ndarray, attribute: str) -> bytes:
    """The region of ``pixels (H, W, 3) uint8`` in which the value of ``attribute`` shows."""
    height, width = pixels.shape[:2]
    points = find_parts(pixels[None]).points[0]
    left, top, right, bottom = region_of(REGIONS[attribute], points, height, width)
    return encode_jpeg(np.ascontiguousarray(pixels[top:bottom, left:right]), QUALITY)
