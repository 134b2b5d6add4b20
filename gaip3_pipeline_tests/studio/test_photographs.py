"""What ``gaip3 retouch`` writes: photographs in their own size."""

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from gaip3_pipeline.imaging.colour import srgb_profile
from gaip3_pipeline.sampling.recipe import Face
from gaip3_pipeline.settings import Images
from gaip3_pipeline.studio.faces import Photograph
from gaip3_pipeline.studio.photographs import retouch_photographs
from gaip3_pipeline.studio.results import find_photographs

CROP = Images().crop


class Brightening:
    """A studio whose retouching makes every face brighter by 40 grey levels, but not dark ones."""

    settings = SimpleNamespace(images=Images())

    def photograph(self, data: bytes) -> Photograph:
        small = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((52, 64)))
        values = [float(small.mean() / 255)] * 5
        face = Face(latents={"seed": 1}, values=values, detail=0.0)
        return Photograph(small, face, farther_than=values[0], held_out=254)

    def retouched(self, faces: Any, fidelity: float) -> tuple[list[Face], list[str]]:
        self.faces = list(faces)
        reasons = ["it is dark" if face.values[0] < 0.3 else "" for face in faces]
        moved = [
            face if reason else face.model_copy(update={"fidelity": fidelity})
            for face, reason in zip(faces, reasons, strict=True)
        ]
        return moved, reasons

    def pictures(self, faces: Any) -> np.ndarray:
        return np.stack(
            [np.full((32, 26, 3), 140 if face.fidelity else 100, np.uint8) for face in faces]
        )


def test_the_change_is_added_in_the_photographs_own_size_and_others_are_copied(tmp_path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(90, 110, (300, 400, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned: upright it is 400 × 300
    Image.fromarray(noise).save(folder / "turned.jpg", quality=95, exif=exif)
    Image.fromarray(noise).save(folder / "plain.png")
    Image.fromarray(noise // 4).save(folder / "dark.png")

    table = retouch_photographs(Brightening(), find_photographs(folder, out), 1.0)  # type: ignore[arg-type]

    assert table.picture.tolist() == ["dark.png", "plain.png.jpg", "turned.jpg"]
    assert table.outcome.tolist() == ["it is dark", "", ""]
    assert table.farther_than.tolist() == table.eyes.tolist()
    assert (out / "dark.png").read_bytes() == (folder / "dark.png").read_bytes()
    result = Image.open(out / "plain.png.jpg")
    assert result.size == (400, 300)
    assert result.info["icc_profile"] == srgb_profile()
    change = np.asarray(result, float).mean(axis=(0, 2)) - noise.mean(axis=(0, 2))
    left = round(400 * CROP)
    middle = change[left + 40 : 400 - left - 40]
    np.testing.assert_allclose(middle, 40, atol=1.5)
    if CROP:
        np.testing.assert_allclose(change[: left - 8], 0, atol=2)  # outside of the cut
        steps = np.abs(np.diff(change))
        assert steps.max() < 8  # no edge of the cut is seen
    turned = Image.open(out / "turned.jpg")
    assert turned.size == (300, 400)
    assert turned.getexif().get(0x0112, 1) == 1

    # a second run replaces a copy by a result
    Image.fromarray(noise).save(folder / "dark.png")
    again = retouch_photographs(Brightening(), find_photographs(folder, out), 1.0)  # type: ignore[arg-type]
    assert again.picture.tolist()[0] == "dark.png.jpg"
    assert not (out / "dark.png").exists()
