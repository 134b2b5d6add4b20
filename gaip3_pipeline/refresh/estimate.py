"""How long assets that were never timed will take, from the number of pictures and the settings.

The rates are those of two CPU cores, measured on the demo (1,300 painted faces, preset ``demo``)
and on 1,981 photographs (preset ``small``); see docs/performance.md. An estimate is right within a
factor of two or so: it tells minutes from hours."""

from collections.abc import Iterable
from typing import Any

from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.settings import Settings, load
from gaip3_pipeline.tables.image_files import list_images

_PIXELS = 64 * 52
# Seconds of each original. An asset is named by itself or by the part before its attribute or set.
_OF_A_PICTURE = {
    "resized": 0.001,
    "augmented": 0.001,
    "near_duplicates": 0.002,
    "image_quality": 0.001,
    "feature_extractor": 0.02,
    "gender_probabilities": 0.007,
    "final_features": 0.007,
    "input_model": 0.003,
    "label_review": 0.006,
    "aggregate_posterior": 0.004,
    "generator_evaluation": 0.06,
    "retouched_samples": 0.007,
}
_OTHERWISE = 0.001
# Seconds of each original and epoch of a training at 64 × 52, and the section of its settings.
_OF_AN_EPOCH: dict[str, tuple[float, str]] = {
    "gender_model": (0.0025, "gender_model"),
    "evaluator": (0.0003, "evaluator"),
    "control_regressor": (0.0015, "control_regressor"),
    "nvae_weights": (0.012, "nvae"),
    "critic_weights": (0.005, "critic"),
    "judge_weights": (0.005, "critic"),
    "reconstruction_judge_weights": (0.005, "critic"),
    "prior_critic_weights": (0.005, "critic"),
}
_OF_A_DETAIL_UPDATE = 0.35
_START = 5.0  # of a training: importing Keras and compiling


def estimates(root: DataRoot, names: Iterable[str]) -> dict[str, float]:
    """The estimated seconds of each of ``names``. Without originals there is nothing to go by, and
    the result is empty."""
    wanted = list(names)
    if not wanted:
        return {}
    pictures = sum(len(list_images(root.original(s))) for s in IMAGE_SETS)
    settings = load(root)
    return {n: _seconds(n, pictures, settings) for n in wanted} if pictures else {}


def _seconds(name: str, pictures: int, settings: Settings) -> float:
    if name == "detail_weights":
        updates = settings.detail.epochs * settings.detail.steps
        return _START + updates * _OF_A_DETAIL_UPDATE * _area(settings.nvae)
    training = next((t for kind, t in _OF_AN_EPOCH.items() if name.startswith(kind)), None)
    if training is None:
        found = (rate for kind, rate in _OF_A_PICTURE.items() if name.startswith(kind))
        return pictures * next(found, _OTHERWISE)
    rate, section = training[0], getattr(settings, training[1])
    # the critics see pictures of the generator's size
    area = _area(section if hasattr(section, "height") else settings.nvae)
    return _START + pictures * section.epochs * rate * area


def _area(section: Any) -> float:
    return section.height * section.width / _PIXELS
