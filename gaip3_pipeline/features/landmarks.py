"""Where the parts of a face are: the outline of the person and 468 points, found by two small
trained networks (mediapipe/README.md).

What a few hundred labels do not teach: where hair ends and background begins, which way a face
looks in space. The networks are given the whole picture, so faces must be as large and upright
as portraits have them."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np

from gaip3_pipeline.layout import LANDMARK_NETWORKS

POINTS = 468
# pixels a side of what the network of the outline sees, and of what that of the points looks at
SEEN, LOOKED_AT = 256, 192
_networks = threading.local()


@dataclass(frozen=True)
class FaceParts:
    """``person (N, H, W) float32``: the chance that a pixel shows the person; ``points (N, 468,
    3) float32``: x, y and depth in pixels."""

    person: np.ndarray
    points: np.ndarray


def find_parts(pictures: np.ndarray) -> FaceParts:
    """The parts of ``pictures (N, H, W, 3) uint8``, portraits of one person each. Never fails:
    what is no face has points somewhere."""
    height, width = pictures.shape[1:3]
    person, points = (
        np.empty(pictures.shape[:3], np.float32),
        np.empty((len(pictures), POINTS, 3), np.float32),
    )
    side = max(height, width)
    above, left = (side - height) // 2, (side - width) // 2
    border = (above, side - height - above, left, side - width - left)

    def find(i: int) -> None:
        seen = _run("selfie_segmentation", cv2.resize(pictures[i], (SEEN, SEEN)))
        person[i] = cv2.resize(
            seen.reshape(SEEN, SEEN), (width, height), interpolation=cv2.INTER_AREA
        )
        square = cv2.copyMakeBorder(pictures[i], *border, cv2.BORDER_REPLICATE)
        points[i] = _run("face_landmark", cv2.resize(square, (LOOKED_AT, LOOKED_AT))).reshape(
            POINTS, 3
        )

    list(_threads().map(find, range(len(pictures))))
    points *= side / LOOKED_AT
    return FaceParts(person, points - np.array([left, above, 0], np.float32))


def _run(name: str, picture: np.ndarray) -> np.ndarray:
    """The first output of the network ``name`` for ``picture (h, w, 3) uint8``."""
    if not hasattr(_networks, name):  # one for each thread: a network holds what it computes
        from ai_edge_litert.interpreter import Interpreter

        made = Interpreter(str(LANDMARK_NETWORKS / f"{name}.tflite"), num_threads=1)
        made.allocate_tensors()
        setattr(_networks, name, made)
    network: Any = getattr(_networks, name)
    network.set_tensor(
        network.get_input_details()[0]["index"], picture[None].astype(np.float32) / 255
    )
    network.invoke()
    return network.get_tensor(network.get_output_details()[0]["index"])


@cache
def _threads() -> ThreadPoolExecutor:
    """Pictures side by side: 1.6 times as fast on two cores as threads inside each network."""
    return ThreadPoolExecutor(os.cpu_count(), "face parts")
