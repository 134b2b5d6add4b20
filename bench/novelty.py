"""How often the studio and ``gaip3 retouch`` call pictures unlike the training pictures.

    python bench/novelty.py ROOT [--photographs FOLDER]

``far_held_out`` is the share of held-out pictures of the split ``test`` that are called far if
those of ``validation`` judge, and the other way round: the false alarms, .01 if the threshold is
right. The other shares are of held-out pictures that were changed (``upside_down``; ``shifted`` by
a third of the width; ``small``: at half the size, on grey), of noise, and of the photographs in
FOLDER, judged by all held-out pictures. The last line is one JSON object.
"""

from pathlib import Path

import numpy as np
from common import command_line, data_root, print_result

from gaip3_pipeline.features.extractor import extract, load_extractor
from gaip3_pipeline.imaging.decode import Target, decode
from gaip3_pipeline.imaging.transform import area_resize, resize
from gaip3_pipeline.settings import load
from gaip3_pipeline.studio.novelty import FAR, Novelty
from gaip3_pipeline.tables.image_files import list_folder
from gaip3_pipeline.training_data import final_images

SHIFT = 3  # the part of the width by which pictures are shifted
GREY = 128


def main() -> None:
    """Judge, print."""
    parser = command_line(__doc__)
    parser.add_argument("root", type=data_root)
    parser.add_argument("--photographs", type=Path)
    a = parser.parse_args()
    settings, extractor = load(a.root), load_extractor(a.root.feature_extractor)
    data, features = final_images(a.root, settings), np.load(a.root.features_final)[0]
    train, test, validation = (
        (data.table.split == split).to_numpy() for split in ("train", "test", "validation")
    )
    pairs = ((test, validation), (validation, test))
    alarms = [Novelty(features[train], features[by]).farther_than(features[of]) for of, by in pairs]
    far = {"held_out": np.concatenate(alarms)}
    novelty = Novelty(features[train], features[~train])
    pictures = np.asarray(data.images[~train])
    others = {
        "upside_down": pictures[:, ::-1, ::-1],
        "shifted": np.roll(pictures, pictures.shape[2] // SHIFT, axis=2),
        "small": _small(pictures),
        "noise": np.random.default_rng(0).integers(0, 256, pictures.shape, np.uint8),
    }
    if a.photographs:
        images = settings.images
        target = Target(images.height, images.width, images.crop)
        files = [Path(path) for path in list_folder(a.photographs).pictures]
        others["photographs"] = np.stack(
            [
                resize(decode(f.read_bytes(), f.name, target, images.max_pixels), target)
                for f in files
            ]
        )
    for name, changed in others.items():
        far[name] = novelty.farther_than(extract(extractor, [changed])[0])
    for name, shares in far.items():
        print(f"{name:12} {(shares >= FAR).mean():.3f} far of {len(shares)}")
    print_result(
        {f"far_{name}": float((shares >= FAR).mean()) for name, shares in far.items()}
        | {f"n_{name}": len(shares) for name, shares in far.items()}
    )


def _small(pictures: np.ndarray) -> np.ndarray:
    """``pictures (N, H, W, 3) uint8`` at half the size, in the middle of grey ones."""
    out = np.full_like(pictures, GREY)
    height, width = pictures.shape[1] // 2, pictures.shape[2] // 2
    top, left = height // 2, width // 2
    for place, picture in zip(out, pictures, strict=True):
        place[top : top + height, left : left + width] = area_resize(picture, height, width)
    return out


if __name__ == "__main__":
    main()
