"""Small charts as JPEG bytes."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context, rcParamsDefault
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# distinguishable for colour-blind people
BLUE, RED, GREEN, GREY = "#4477aa", "#ee6677", "#228833", "#bbbbbb"
# Decorates each function that draws. The current folder may hold a matplotlibrc, which Matplotlib
# prefers to that of the package, and a notebook has a style of its own.
default_style = rc_context(dict(rcParamsDefault))


@default_style
def histogram(values: npt.ArrayLike, title: str, low: float = 0.0, high: float = 1.0) -> bytes:
    """Counts of ``values`` in 40 bins from ``low`` to ``high``."""
    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axes = figure.subplots()
    numbers = np.asarray(values, float)
    axes.hist(numbers, bins=40, range=(low, high), color=BLUE)
    axes.set_title(f"{title}  (n = {len(numbers):,})", fontsize=10)
    axes.set_ylabel("images")
    return jpeg(figure)


@default_style
def training_curves(history: Sequence[Mapping[str, float]], title: str) -> bytes:
    """Every figure of a training against its epochs; a validation figure is in the panel of its
    training figure."""
    names = sorted({k.removeprefix("val_") for epoch in history for k in epoch})
    columns = min(3, max(1, len(names)))
    rows = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(3.4 * columns, 2.4 * rows), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    epochs = np.arange(1, len(history) + 1)
    for axes, name in zip(grid, names, strict=False):
        for key, style in ((name, "-"), (f"val_{name}", "--")):
            if any(key in epoch for epoch in history):
                axes.plot(
                    epochs,
                    [epoch.get(key, np.nan) for epoch in history],
                    style,
                    label="validation" if style == "--" else "training",
                )
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("epoch", fontsize=8)
        axes.tick_params(labelsize=7)
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    if any(k.startswith("val_") for epoch in history for k in epoch):
        grid[0].legend(fontsize=7)
    figure.suptitle(title, fontsize=10)
    return jpeg(figure)


@default_style
def scatter(
    asked: np.ndarray, measured: np.ndarray, title: str, x: str = "label", y: str = "prediction"
) -> bytes:
    """``(N,)`` against ``(N,)``, both in 0..1, with the diagonal."""
    figure = Figure(figsize=(3.6, 3.4), layout="constrained")
    axes = figure.subplots()
    jitter = np.random.default_rng(0).normal(0, 0.008, len(asked))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    axes.scatter(
        np.asarray(asked) + jitter, measured, s=8, alpha=0.5, color=BLUE, edgecolors="none"
    )
    axes.set(xlabel=x, ylabel=y, xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))
    axes.set_title(f"{title}  (n = {len(asked):,})", fontsize=9)
    return jpeg(figure)


def jpeg(figure: Figure, dpi: int = 90) -> bytes:
    """A figure as JPEG bytes, drawn without any global state of matplotlib."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="jpeg", dpi=dpi, pil_kwargs={"quality": 85})
    return buffer.getvalue()
