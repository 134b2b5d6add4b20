"""Sharpness of pictures per octave, by power and by three measures that added noise does not
improve: kurtosis, independence of the noise map, correlation with the photograph.

A band is a grey picture minus its half-size version enlarged again; the band of the next octave is
that of the half-size picture. Octave 1 is the finest. The power of a band is its mean square. Edges
differ from noise in three ways: most values of a band are small and few are large (kurtosis far
above the 3 of Gaussian noise); they depend on the latents and not on the noise map; in a
reconstruction they are where the photograph has them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

OCTAVES = 3
BOOTSTRAPS = 1000
# limits of shortcomings(): power relative to photographs, relative error of kurtosis, share of
# noise, increase of grid coherence
POWER, KURTOSIS, NOISE, GRID = (0.85, 1.15), 0.2, 0.5, 0.15
GRID_PERIODS = (2, 4, 8)  # in pixels, of the textures that strides and upsampling cause


def bands(images: np.ndarray, octaves: int = OCTAVES) -> list[np.ndarray]:
    """The bands of ``images (N, H, W, 3) uint8``: one ``(N, h, w) float32`` per octave, the finest
    first, in grey levels."""
    found = []
    grey = images.astype(np.float32).mean(axis=3)
    for _ in range(octaves):
        height, width = grey.shape[1:]
        half = np.stack(
            [
                cv2.resize(
                    g, (math.ceil(width / 2), math.ceil(height / 2)), interpolation=cv2.INTER_AREA
                )
                for g in grey
            ]
        )
        found.append(
            grey
            - np.stack(
                [cv2.resize(h, (width, height), interpolation=cv2.INTER_LINEAR) for h in half]
            )
        )
        grey = half
    return found


@dataclass(frozen=True)
class Octave:
    """One octave of a set of pictures: the power of each, ``(N,) float64`` in squared grey levels,
    and the kurtosis over all."""

    power: np.ndarray
    kurtosis: float


def octaves(images: np.ndarray) -> list[Octave]:
    """The octaves of ``images (N, H, W, 3) uint8``, the finest first."""
    return [
        Octave((band**2).mean(axis=(1, 2), dtype=np.float64), kurtosis(band))
        for band in bands(images)
    ]


def power_ratio(ours: Octave, theirs: Octave) -> float:
    """The mean power of one set of pictures divided by that of another."""
    return float(ours.power.mean() / theirs.power.mean())


def sharpness_figures(samples: np.ndarray, real: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Metrics of ``samples (N, H, W, 3) uint8`` relative to ``real (M, H, W, 3) uint8`` for each
    octave ``k``.

    ``power_k``: power relative to that of ``real``, with ``_low`` and ``_high``, its 95 % bootstrap
    interval over pictures; ``kurtosis_k`` and ``kurtosis_k_real``; ``grid``: the largest increase
    of :func:`grid_coherence` over ``real``."""
    generator = np.random.default_rng(seed)
    figures: dict[str, float] = {}
    for k, (drawn, photographed) in enumerate(zip(octaves(samples), octaves(real), strict=True), 1):
        ours, theirs = drawn.power, photographed.power
        draws = [
            ours[generator.integers(0, len(ours), len(ours))].mean()
            / theirs[generator.integers(0, len(theirs), len(theirs))].mean()
            for _ in range(BOOTSTRAPS)
        ]
        low, high = np.quantile(draws, [0.025, 0.975])
        figures |= {
            f"power_{k}": power_ratio(drawn, photographed),
            f"power_{k}_low": float(low),
            f"power_{k}_high": float(high),
        }
        figures |= {f"kurtosis_{k}": drawn.kurtosis, f"kurtosis_{k}_real": photographed.kurtosis}
    return figures | {"grid": float((grid_coherence(samples) - grid_coherence(real)).max())}


def noise_shares(draws: np.ndarray) -> dict[str, float]:
    """``noise_k`` of each octave: the share of power that changes with the noise map.

    ``draws (J, N, H, W, 3) uint8``: entry j has the same faces with another noise map. The variance
    over draws is unbiased."""
    by_draw = [bands(d) for d in draws]
    figures = {}
    for k in range(OCTAVES):
        together = np.stack([b[k] for b in by_draw])
        power = (together**2).mean(dtype=np.float64)
        figures[f"noise_{k + 1}"] = float(
            together.var(axis=0, ddof=1, dtype=np.float64).mean() / max(power, 1e-12)
        )
    return figures


def agreements(rebuilt: np.ndarray, photographs: np.ndarray) -> dict[str, float]:
    """``agreement_k`` of each octave: the correlation of reconstructions ``(N, H, W, 3) uint8``
    with their photographs."""
    pairs = zip(bands(rebuilt), bands(photographs), strict=True)
    return {
        f"agreement_{k}": float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        for k, (a, b) in enumerate(pairs, 1)
    }


def kurtosis(band: np.ndarray) -> float:
    """E d⁴ / (E d²)² of the values of a band; 3 for Gaussian noise."""
    square = np.square(band, dtype=np.float64)
    return float((square**2).mean() / max(square.mean() ** 2, 1e-12))


def grid_coherence(images: np.ndarray) -> np.ndarray:
    """The share of power at periods of 2, 4 and 8 pixels that has the same phase in all of
    ``images (N, H, W, 3) uint8``.

    ``(24,)``: one value per combination of periods along rows and columns, the latter in both
    diagonal directions. A texture that a network prints on its grid has the same position in every
    picture. What pictures show does not: its share is about 1/N, more where aligned faces are
    alike."""
    # cropped so that each period is a frequency of the transform
    height, width = (size // max(GRID_PERIODS) * max(GRID_PERIODS) for size in images.shape[1:3])
    grey = images[:, :height, :width].astype(np.float32).mean(axis=3)
    spectrum = np.fft.fft2(grey - grey.mean(axis=(1, 2), keepdims=True))
    coherent = np.abs(spectrum.mean(axis=0)) ** 2 / np.maximum(
        (np.abs(spectrum) ** 2).mean(axis=0), 1e-9
    )
    rows, columns = ([0, *(size // period for period in GRID_PERIODS)] for size in (height, width))
    found = [coherent[r, c] for r in rows for c in columns if r or c]
    mirrored = [coherent[r, -c] for r in rows[1:] for c in columns[1:]]  # the other diagonal
    return np.array(found + mirrored)


def shortcomings(
    figures: Mapping[str, float], octaves: Sequence[int] = range(1, OCTAVES + 1)
) -> list[str]:
    """A phrase for each metric of :func:`sharpness_figures` and :func:`noise_shares` that is
    outside its limit."""
    problems = []
    if figures["grid"] > GRID:
        problems.append(
            f"{figures['grid']:.0%} more of the power at a period of 2, 4 or 8 pixels than in"
            " photographs has the same phase in all pictures"
        )
    for k in octaves:
        power, ours, theirs = (
            figures[f"power_{k}"],
            figures[f"kurtosis_{k}"],
            figures[f"kurtosis_{k}_real"],
        )
        if not POWER[0] <= power <= POWER[1]:
            problems.append(
                f"octave {k} has {power:.2f} of the photographs' power ({POWER[0]:g} to"
                f" {POWER[1]:g})"
            )
        if not abs(ours / theirs - 1.0) <= KURTOSIS:
            problems.append(
                f"octave {k} has kurtosis {ours:.1f} where photographs have {theirs:.1f} (within"
                f" {KURTOSIS:.0%})"
            )
        if not figures[f"noise_{k}"] <= NOISE:
            problems.append(
                f"{figures[f'noise_{k}']:.0%} of octave {k} is noise (at most {NOISE:.0%})"
            )
    return problems
