"""The generator's training on another machine: its package, and the command that trains there.

    python -m gaip3_pipeline.training.rented

in the unpacked folder trains to the last epoch, with JAX unless ``KERAS_BACKEND`` says otherwise,
and writes a checkpoint after every epoch into ``checkpoints/``. The same command continues a
training that was stopped. It needs the packages in ``requirements.txt`` and imports neither Dagster
nor MLflow."""

import dataclasses
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gaip3_pipeline.layout import PACKAGE
from gaip3_pipeline.settings import Nvae, nvae_of

FOLDER = "gaip3-gpu"  # that the package unpacks into
CURVE = "curve.csv"
_ABOUT, _EXAMPLES, _PICTURES, _GUIDE = "training.json", "examples.npz", "pictures", "guide"
# WebP pictures have at most 16,383 rows
_ROWS = 16_000


@dataclass(frozen=True)
class Package:
    """What a training of the generator reads: ``images (N, h, w, 3) uint8`` of the generator's
    size, ``values (N, 5)``, ``split (N,)``, its settings, the fingerprint of its checkpoints, which
    values the guide can predict, and the folder of the guide (None: no control)."""

    images: np.ndarray
    values: np.ndarray
    split: np.ndarray
    settings: Nvae
    fingerprint: str
    known: list[bool]
    guide: Path | None

    def write(self, file: Path, requirements: list[str]) -> None:
        """Write the package with the code of the pipeline as a tar archive. Pictures are compressed
        without loss."""
        import io

        about = {
            "fingerprint": self.fingerprint,
            "settings": dataclasses.asdict(self.settings),
            "known": self.known,
            "guide": self.guide is not None,
        }
        examples = io.BytesIO()
        np.savez_compressed(examples, values=self.values, split=self.split.astype(np.str_))
        with tarfile.open(file, "w") as tar:

            def add(name: str, content: bytes) -> None:
                info = tarfile.TarInfo(f"{FOLDER}/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))

            add(_ABOUT, json.dumps(about, indent=1).encode())
            add("requirements.txt", "".join(f"{line}\n" for line in requirements).encode())
            add(_EXAMPLES, examples.getvalue())
            for number, strip in enumerate(_strips(self.images)):
                add(f"{_PICTURES}/{number:05d}.webp", strip)
            for path in sorted(self.guide.iterdir() if self.guide else ()):
                if path.is_file():
                    add(f"{_GUIDE}/{path.name}", path.read_bytes())
            for path in sorted(PACKAGE.rglob("*")):
                if path.suffix == ".py" or path.name == "keras.json":
                    add(f"{PACKAGE.name}/{path.relative_to(PACKAGE)}", path.read_bytes())

    @classmethod
    def read(cls, folder: Path) -> "Package":
        """The package that was unpacked into ``folder``. Raises ``FileNotFoundError`` if there is
        none."""
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        settings = nvae_of(about["settings"])
        with np.load(folder / _EXAMPLES, allow_pickle=False) as examples:
            values, split = examples["values"], examples["split"]
        return cls(
            _pictures(folder / _PICTURES, settings.height, settings.width),
            values,
            split,
            settings,
            about["fingerprint"],
            about["known"],
            folder / _GUIDE if about["guide"] else None,
        )


def _strips(images: np.ndarray) -> Iterator[bytes]:
    """Lossless WebP pictures of many images, one below the other."""
    import cv2

    n, height, width, _ = images.shape
    each = _ROWS // height
    for i in range(0, n, each):
        strip = images[i : i + each].reshape(-1, width, 3)
        # a quality above 100 is lossless
        yield cv2.imencode(".webp", strip[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()


def _pictures(folder: Path, height: int, width: int) -> np.ndarray:
    import cv2

    strips: list[np.ndarray] = []
    for path in sorted(folder.glob("*.webp")):
        strip = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        if strip is None:
            raise ValueError(f"{path} cannot be read: unpack the archive again")
        strips.append(strip)
    return np.ascontiguousarray(np.concatenate(strips)[..., ::-1]).reshape(-1, height, width, 3)


def main() -> None:
    """Train the package in the current folder."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path("compiled").absolute()))
    from gaip3_pipeline.progress import Progress
    from gaip3_pipeline.training.generator import fit_nvae
    from gaip3_pipeline.training.regressor import load_network
    from gaip3_pipeline.training.run import Examples, Run

    package, curve = Package.read(Path()), Path(CURVE)

    def log(epoch: int, figures: dict[str, float]) -> None:
        with curve.open("a", encoding="utf-8") as f:
            f.write(f"{epoch},{figures['loss']:.6f},{figures.get('val_bits_per_dim', '')}\n")

    if not curve.exists():
        curve.write_text("epoch,loss,val_bits_per_dim\n", encoding="utf-8")
    run = Run(Path().absolute(), package.fingerprint, log, Progress("  generator", 1))
    fitted = fit_nvae(
        Examples(package.images, package.values, package.split),
        package.settings,
        run,
        guides=[load_network(package.guide)] if package.guide else [],
        known=package.known,
    )
    print(
        f"{len(fitted.history)} epochs, in {fitted.training.precision}: copy the folder"
        f" {run.checkpoints} to the machine with the data root, and run gaip3 gpu take there"
    )


if __name__ == "__main__":
    main()
