"""The filmstrip of a training: the same few faces after some of its epochs, on one picture."""

import io
from pathlib import Path

import numpy as np

from gaip3_pipeline.imaging.contact_sheet import contact_sheet
from gaip3_pipeline.tables.files import write_bytes_atomically

FACES, COLUMNS = 4, 12
KEPT = 2 * COLUMNS  # epochs in the file, so that those shown can be chosen evenly
_WIDTH, _MAX_BYTES = 78, 200_000  # of a column in pixels; of the picture


class Filmstrip:
    """Faces after epochs of one training. They are kept in ``file``, from which a training that was
    interrupted continues its strip.

    Faces of another ``fingerprint`` in ``file`` are dropped, unless ``resume``: then the training
    continues one of other settings or data. A file that cannot be read is begun anew."""

    def __init__(self, file: Path, fingerprint: str, resume: bool = False) -> None:
        self._file, self._fingerprint = file, fingerprint
        self._columns: dict[int, np.ndarray] = {}
        try:
            with np.load(file, allow_pickle=False) as kept:
                if resume or kept["fingerprint"] == fingerprint:
                    self._columns = dict(zip(kept["epochs"].tolist(), kept["faces"], strict=True))
        except Exception:  # of NumPy and zipfile: the strip is no part of the result
            self._columns = {}

    def add(self, epoch: int, faces: np.ndarray) -> None:
        """Add the first ``FACES`` of ``faces (N, H, W, 3) uint8`` after ``epoch``, in place of
        those of later epochs, which the training repeats."""
        column = np.concatenate(list(faces[:FACES]))
        self._columns = {
            e: c for e, c in self._columns.items() if e < epoch and c.shape == column.shape
        } | {epoch: column}
        epochs = np.array(list(self._columns))
        if len(epochs) > KEPT:
            # the epoch without which the gap is smallest
            del self._columns[int(epochs[1 + np.argmin(epochs[2:] - epochs[:-2])])]
        content = io.BytesIO()
        np.savez(
            content,
            fingerprint=np.array(self._fingerprint),
            epochs=np.array(list(self._columns)),
            faces=np.stack(list(self._columns.values())),
        )
        write_bytes_atomically(self._file, content.getvalue())

    def jpeg(self) -> bytes | None:
        """At most ``COLUMNS`` epochs, evenly distributed over the training; None without any."""
        if not self._columns:
            return None
        epochs = np.array(list(self._columns))
        wanted = np.linspace(epochs[0], epochs[-1], min(COLUMNS, len(epochs)))
        shown = epochs[sorted({int(np.abs(epochs - w).argmin()) for w in wanted})]
        height, width, _ = self._columns[int(shown[0])].shape
        scale = max(1.0, _WIDTH / width)
        return contact_sheet(
            [self._columns[int(e)] for e in shown],
            len(shown),
            (round(width * scale), round(height * scale)),
            [f"epoch {e}" for e in shown],
            max_bytes=_MAX_BYTES,
        )
