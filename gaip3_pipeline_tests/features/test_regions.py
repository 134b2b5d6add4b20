"""The region of a picture in which a value shows."""

import numpy as np
import pytest

from gaip3_pipeline.features.landmarks import POINTS
from gaip3_pipeline.features.regions import REGIONS, region_of


@pytest.mark.parametrize("attribute", REGIONS)
@pytest.mark.parametrize("place", [(60, 50), (0, 0), (5000, -300)])
def test_a_region_has_its_aspect_and_lies_inside_the_picture(attribute, place):
    points = np.random.default_rng(1).normal(place, 12, (POINTS, 2))
    left, top, right, bottom = region_of(REGIONS[attribute], points, 128, 104)
    assert 0 <= left < right <= 104
    assert 0 <= top < bottom <= 128
    width = (bottom - top) * REGIONS[attribute].aspect
    assert right - left == pytest.approx(width, abs=2 * REGIONS[attribute].aspect)


def test_a_region_surrounds_its_points():
    points = np.full((POINTS, 2), 400.0)
    lips = REGIONS["mouth"].points
    points[list(lips)] = np.random.default_rng(2).uniform((200, 300), (260, 330), (len(lips), 2))
    left, top, right, bottom = region_of(REGIONS["mouth"], points, 512, 416)
    assert left <= 200
    assert top <= 300
    assert right >= 260
    assert bottom >= 330
