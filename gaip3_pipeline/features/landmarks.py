"""Landmarks of faces: the outline of the person and 468 points of the face, found by two small
trained networks (mediapipe/README.md).

A few hundred labels are too few to learn where hair ends and background begins, or how a face is
rotated in space. The networks get the whole picture, so faces must be as large and as upright as in
portraits."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np

from gaip3_pipeline.environment import without_remarks
from gaip3_pipeline.imaging.mapping import cores
from gaip3_pipeline.layout import LANDMARK_NETWORKS

POINTS = 468
# input sizes in pixels per side: of the network of the outline, and of that of the points
SEEN, LOOKED_AT = 256, 192
_networks = threading.local()


@dataclass(frozen=True)
class FaceParts:
    """``person (N, H, W) float32``: the probability that a pixel shows the person;
    ``points (N, 468, 3) float32``: x, y and depth in pixels."""

    person: np.ndarray
    points: np.ndarray


def find_parts(pictures: np.ndarray) -> FaceParts:
    """The landmarks of ``pictures (N, H, W, 3) uint8``, portraits of one person each. Without a
    face the points are meaningless; no error is raised."""
    height, width = pictures.shape[1:3]
    person, points = (
        np.empty(pictures.shape[:3], np.float32),
        np.empty((len(pictures), POINTS, 3), np.float32),
    )
    side = max(height, width)
    above, left = (side - height) // 2, (side - width) // 2
    border = (above, side - height - above, left, side - width - left)

    def find(i: int) -> None:
        outline = _run("selfie_segmentation", cv2.resize(pictures[i], (SEEN, SEEN)))
        person[i] = cv2.resize(
            outline.reshape(SEEN, SEEN), (width, height), interpolation=cv2.INTER_AREA
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
    if not hasattr(_networks, name):  # one per thread: an interpreter holds its tensors
        from ai_edge_litert.interpreter import Interpreter

        with without_remarks():
            interpreter = Interpreter(model_content=_content(name), num_threads=1)
            interpreter.allocate_tensors()
        setattr(_networks, name, interpreter)
    network: Any = getattr(_networks, name)
    network.set_tensor(
        network.get_input_details()[0]["index"], picture[None].astype(np.float32) / 255
    )
    network.invoke()
    return network.get_tensor(network.get_output_details()[0]["index"])


@cache
def _content(name: str) -> bytes:
    """The network ``name`` as LiteRT reads it."""
    content = (LANDMARK_NETWORKS / f"{name}.tflite").read_bytes()
    if name != "selfie_segmentation":
        return content
    # not above: the schema of these files takes a tenth of a second to import
    from gaip3_pipeline.features.outline_network import with_faster_end

    return with_faster_end(content)


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads for pictures side by side: on two cores 1.6 times as fast as threads inside each
    network."""
    return ThreadPoolExecutor(cores(), "face parts")
