"""Fresh samples of a generator compared with real pictures: distances, sharpness, fresh judges, and
the nearest training pictures."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gaip3_pipeline.evaluation.distances import (
    Features,
    distances_to_real,
    identity,
    random_features,
)
from gaip3_pipeline.evaluation.fresh_judges import FOLDS, fresh_judges
from gaip3_pipeline.imaging.augment import shrink
from gaip3_pipeline.imaging.contact_sheet import contact_sheet
from gaip3_pipeline.imaging.transform import area_resize
from gaip3_pipeline.metrics.neighbours import copying, nearest
from gaip3_pipeline.metrics.sharpness import (
    agreements,
    noise_shares,
    octaves,
    power_ratio,
    sharpness_figures,
)
from gaip3_pipeline.progress import Progress
from gaip3_pipeline.sampling.draw import SEED_OFFSET, FaceGenerator, as_bytes
from gaip3_pipeline.settings import Samples
from gaip3_pipeline.training.run import Examples

MOST = 400  # samples, and held-out pictures that fresh judges see
# noise maps and faces for the share of noise; reconstructions compared with their photographs
NOISE_DRAWS, NOISE_FACES, REBUILT = 4, 48, 160
FORTY = 40  # faces on the sheet
# Size at which samples are compared with training pictures. Blur brings all pictures closer to each
# other, and matters less at this size.
THUMBNAIL = (16, 13)


@dataclass(frozen=True)
class SampleEvaluation:
    """Samples, their figures (see :func:`evaluate_samples`) and the nearest training pictures."""

    figures: dict[str, float | int]
    images: np.ndarray  # (k, H, W, 3) uint8: the figures use the first n, the judges all
    plain: np.ndarray  # (k, H, W, 3) uint8: the same faces without detail
    photographs: np.ndarray  # (m, H, W, 3) uint8: held-out pictures
    # (n, H, W, 3) uint8: the training picture nearest to each, mirrored where that is nearer
    nearest: np.ndarray
    distance: np.ndarray  # (n,) to it: root mean square in grey levels at THUMBNAIL


def draw_fresh(
    generator: FaceGenerator,
    values: np.ndarray,
    n: int,
    settings: Samples,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """``n`` samples ``(n, H, W, 3) uint8`` whose values are random rows of ``values (N, 5)``, drawn
    with ``settings``, and the same faces without detail."""
    rows = np.asarray(values, np.float32)[
        np.random.default_rng(settings.seed).integers(0, len(values), n)
    ]
    seeds = settings.seed + SEED_OFFSET["measured"] + np.arange(n)
    batches = generator.draw_both(seeds, rows, settings, progress)
    images, plain = (np.concatenate(side) for side in zip(*batches, strict=True))
    return images, plain


def evaluate_samples(
    generator: FaceGenerator,
    images: np.ndarray,
    values: np.ndarray,
    learned: np.ndarray,
    settings: Samples,
    *,
    features: Mapping[str, Features] | None = None,
    progress: Progress | None = None,
) -> SampleEvaluation | None:
    """Draw as many samples as there are held-out pictures, at most ``MOST``, and compare half as
    many with them.

    Returns None without training pictures or with fewer than two held-out ones. ``images (N, H, W,
    3) uint8``, ``values (N, 5)``, ``learned (N,) bool``: which were trained on. Figures: those of
    :func:`distances_to_real` over ``features``, with the suffixes ``_samples`` and ``_real``;
    ``nearest_samples`` and ``nearest_real``, the median distance of samples and of held-out
    pictures to the nearest training picture or its mirror image (root mean square in grey levels at
    ``THUMBNAIL``); ``copying``, see metrics/neighbours.py; and those of :func:`detail_figures`."""
    seen, unseen = np.flatnonzero(learned), np.flatnonzero(~np.asarray(learned))
    n = min(MOST, len(unseen) // 2)
    if n == 0 or not len(seen):
        return None
    all_drawn, plain = draw_fresh(generator, values, min(MOST, len(unseen)), settings, progress)
    drawn = all_drawn[:n]
    height, width = drawn.shape[1:3]
    held_out = shrink(images[unseen], height, width)
    small = np.stack([area_resize(images[i], *THUMBNAIL) for i in seen])
    both_ways = _rows(np.concatenate([small, small[:, :, ::-1]]))
    distance, index = nearest(_rows(shrink(drawn, *THUMBNAIL)), both_ways)
    real_distance, _ = nearest(_rows(shrink(held_out, *THUMBNAIL)), both_ways)
    found = shrink(images[seen[index % len(seen)]], height, width)
    found = np.where((index >= len(seen))[:, None, None, None], found[:, :, ::-1], found)
    figures = distances_to_real({"samples": drawn}, images[unseen], features=features) | {
        "nearest_samples": float(np.median(distance)),
        "nearest_real": float(np.median(real_distance)),
        "copying": copying(distance, real_distance),
    }
    figures |= detail_figures(generator, held_out, values[unseen], drawn, plain[:n], settings)
    return SampleEvaluation(figures, all_drawn, plain, held_out, found, distance)


def compare_samples(
    generator: FaceGenerator,
    examples: Examples,
    originals: np.ndarray,
    settings: Samples,
    features: Mapping[str, Features],
    progress: Progress,
) -> tuple[dict[str, float], dict[str, bytes]]:
    """Figures of samples and of fresh judges against the held-out pictures of ``examples``, and
    contact sheets; both are empty if no picture is held out.

    ``originals (N,)``: the original of each picture; ``progress`` reports that of the judges."""
    learned = examples.split == "train"
    fresh = evaluate_samples(
        generator, examples.images, examples.values, learned, settings, features=features
    )
    if fresh is None:
        return {}, {}
    _, groups = np.unique(originals[~learned], return_inverse=True)
    figures = fresh.figures | judge_samples(fresh, groups, settings.seed, progress)
    sheets = {"faces": faces_sheet(fresh), "nearest_training_pictures": nearest_sheet(fresh)}
    return figures, sheets


def detail_figures(
    generator: FaceGenerator,
    held_out: np.ndarray,
    values: np.ndarray,
    drawn: np.ndarray,
    plain: np.ndarray,
    settings: Samples,
) -> dict[str, float | int]:
    """Figures of the detail of samples ``drawn (n, H, W, 3) uint8``, compared with the same samples
    without it, ``plain``, and with ``held_out (m, H, W, 3) uint8``.

    Those of :func:`sharpness_figures`, with ``power_k_plain`` of octave k without detail; those of
    :func:`noise_shares`; ``agreement_k`` and ``agreement_k_plain`` of reconstructions of held-out
    pictures; ``detail_identity`` and ``detail_recognised``, how much detail changes a face
    (:func:`identity`)."""
    figures: dict[str, float | int] = dict(sharpness_figures(drawn, held_out))
    undetailed = enumerate(zip(octaves(plain), octaves(held_out), strict=True), 1)
    figures |= {f"power_{k}_plain": power_ratio(*pair) for k, pair in undetailed}
    few = values[:NOISE_FACES]
    seeds = settings.seed + SEED_OFFSET["measured"] + np.arange(len(few))
    means = generator.means(
        generator.latents(seeds, few, settings.temperature), few, settings.guidance
    )
    maps = [
        generator.detailed(means, seeds + draw * len(few), settings.detail)
        for draw in range(NOISE_DRAWS)
    ]
    figures |= noise_shares(as_bytes(np.stack(maps)))
    pictures, given = held_out[:REBUILT], values[:REBUILT]
    rebuilt, seeds = generator.rebuilt(pictures, given)
    for end, amount in (("", settings.detail), ("_plain", 0.0)):
        found = agreements(as_bytes(generator.detailed(rebuilt, seeds, amount)), pictures)
        figures |= {f"{name}{end}": f for name, f in found.items()}
    features = random_features()
    return figures | {
        f"detail_{name}": f for name, f in identity(features(plain), features(drawn)).items()
    }


def judge_samples(
    fresh: SampleEvaluation, groups: np.ndarray, seed: int, progress: Progress | None = None
) -> dict[str, float]:
    """:func:`fresh_judges` of at most ``MOST`` held-out pictures of ``fresh`` against as many
    samples, with and without detail.

    ``groups (m,)``: equal for twins, which are all used or all left out. Returns no figures if too
    few originals are held out for ``FOLDS`` folds of each half."""
    chosen = whole_groups(groups, MOST, seed)
    if len(np.unique(groups[chosen])) < 2 * FOLDS:
        return {}
    n = len(chosen)
    return fresh_judges(
        fresh.photographs[chosen], groups[chosen], fresh.images[:n], fresh.plain[:n], progress
    )


def whole_groups(groups: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most ``most`` rows of ``groups (N,)``: whole groups, in a random order given by
    ``seed``."""
    names, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    taken = order[np.cumsum(sizes[order]) <= most]
    return np.flatnonzero(np.isin(index, taken))


def faces_sheet(fresh: SampleEvaluation) -> bytes:
    """A JPEG of the first forty samples, not selected: without detail, with it, and as many
    held-out pictures."""
    columns = 8
    sets = [part[:FORTY] for part in (fresh.plain, fresh.images, fresh.photographs)]
    rows = -(-max(len(s) for s in sets) // columns)
    white = np.full_like(fresh.images[0], 255)
    pictures = []
    for row in range(rows):
        for part in sets:
            line = list(part[row * columns : (row + 1) * columns])
            pictures += line + [white] * (columns - len(line))
    height, width = fresh.images.shape[1:3]
    title = (
        f"{len(sets[0])} samples at random: the mean (left), with detail (middle); held-out"
        " pictures (right)"
    )
    return contact_sheet(pictures, 3 * columns, cell=(width, height), title=title)


def nearest_sheet(fresh: SampleEvaluation, columns: int = 10) -> bytes:
    """A JPEG of the samples with the least distance to a training picture, each above that
    picture."""
    chosen = np.argsort(fresh.distance)[:columns]
    pictures = [*fresh.images[chosen], *fresh.nearest[chosen]]
    captions = [f"sample, {d:.0f}" for d in fresh.distance[chosen]] + ["its nearest"] * len(chosen)
    title = (
        "the samples nearest to a training picture (root mean square, grey levels at 16 by 13),"
        " above it"
    )
    height, width = fresh.images.shape[1:3]
    return contact_sheet(
        pictures, len(chosen), cell=(96, 96 * height // width), captions=captions, title=title
    )


def _rows(small: np.ndarray) -> np.ndarray:
    """``(N, D) float32``, scaled so that a Euclidean distance is a root mean square in grey
    levels."""
    rows = small.reshape(len(small), -1).astype(np.float32)
    return rows / np.sqrt(rows.shape[1], dtype=np.float32)
