"""The pictures of docs/transport.md: a plan, how fast marginals come true, and the colours of one picture in another."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np

from bench.lib.plot import INK, OURS, THEIRS, pictures
from bench.lib.report import Report
from fastdistill.transport import Transport, sinkhorn

WIDTH, HEIGHT = 96, 64  # of the pictures that exchange colours
COLOUR_EPSILON = 0.003  # squared distances of colours between 0 and 1
GRID, GRID_EPSILON = 160, 0.002
CURVES = {1e-1: THEIRS[0], 1e-2: THEIRS[1], 1e-3: OURS}  # epsilon as a part of the largest cost
MOST_ITERATIONS = 400


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=pictures, default=".", metavar="FOLDER", help="where they go (default: the current one)"
    )


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    import matplotlib

    matplotlib.use("Agg")
    for name, draw in {
        "transport_plan": draw_plan,
        "transport_convergence": draw_convergence,
        "transport_colours": draw_colours,
    }.items():
        file = options.folder / f"{name}.png"
        for what, found in draw(file).items():
            error = found.marginal_error
            report.row(
                file=file.name,
                of=what,
                iterations=int(found.iterations),
                error=float(error),
                converged=bool(found.converged),
            )
    return report


# ---- a plan ----


def mixtures() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places (GRID, 1) between 0 and 1, and two mixtures of normal laws over them."""
    places = np.linspace(0, 1, GRID)

    def mixture(*parts: tuple[float, float, float]) -> np.ndarray:
        density = [weight * np.exp(-0.5 * ((places - mean) / width) ** 2) / width for weight, mean, width in parts]
        return np.sum(density, axis=0) / np.sum(density)

    return places[:, None], mixture((0.6, 0.25, 0.06), (0.4, 0.7, 0.08)), mixture((0.5, 0.5, 0.05), (0.5, 0.82, 0.05))


def draw_plan(path: Path) -> dict[str, Transport]:
    """The plan as a map, rows downward, its marginals along the edges."""
    from matplotlib import pyplot
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    places, a, b = mixtures()
    found = sinkhorn(a, b, x=places, y=places, epsilon=GRID_EPSILON, tolerance=1e-9, max_iterations=10_000)
    figure, axes = pyplot.subplots(
        2, 2, figsize=(5.2, 5.2), dpi=120, width_ratios=(1, 4), height_ratios=(1, 4), gridspec_kw={"wspace": 0.03, "hspace": 0.03}
    )  # fmt: skip
    fading = LinearSegmentedColormap.from_list("", [to_rgba(INK, 0), to_rgba(OURS, 0.8), to_rgba(OURS, 1)])
    drawn = axes[1, 1].imshow(
        1e3 * found.plan, cmap=fading, interpolation="nearest", extent=(0, 1, 1, 0), aspect="auto"
    )
    axes[0, 1].fill_between(places[:, 0], b, color=THEIRS[0], alpha=0.6, linewidth=0)
    axes[1, 0].fill_betweenx(places[:, 0], a, color=THEIRS[1], alpha=0.6, linewidth=0)
    axes[0, 1].set(xlim=(0, 1), ylim=(0, None))
    axes[1, 0].set(ylim=(1, 0), xlim=(1.05 * a.max(), 0))
    for one in axes.flat:
        one.set(xticks=[], yticks=[])
        one.spines[:].set_visible(False)
    axes[1, 1].spines[:].set(visible=True, color=INK, alpha=0.4)
    axes[0, 1].text(0.03, 0.1 * b.max(), "b: wanted", color=THEIRS[0], fontsize=11)
    axes[1, 0].text(1.0 * a.max(), 0.97, "a: there", color=THEIRS[1], fontsize=11)
    scale = figure.colorbar(drawn, ax=axes, location="bottom", fraction=0.04, pad=0.04)
    scale.set_label(f"mass of a pair of places, in thousandths; {GRID} x {GRID} pairs", color=INK)
    scale.ax.tick_params(colors=INK, length=0)
    scale.outline.set_visible(False)
    save(figure, path)
    return {"": found}


# ---- convergence ----


def draw_convergence(path: Path) -> dict[str, Transport]:
    """The marginal error by iteration: solid at one epsilon throughout, dashed where it falls from the largest cost."""
    from matplotlib import pyplot

    places, a, b = mixtures()
    figure, axes = pyplot.subplots(figsize=(8, 4), dpi=120)
    results = {}
    for epsilon, color in CURVES.items():
        for scaling, style in ((None, "-"), (0.5, (0, (3, 2)))):
            found = sinkhorn(
                a, b, x=places, y=places, epsilon=epsilon, tolerance=1e-10, max_iterations=MOST_ITERATIONS,
                epsilon_scaling=scaling, history=True,
            )  # fmt: skip
            errors = found.errors[: found.iterations]
            axes.plot(np.arange(1, len(errors) + 1), errors, color=color, linestyle=style, linewidth=1.6)
            name = f"epsilon {epsilon:g}" + (f", scaling {scaling:g}" if scaling else "")
            results[name] = found
        axes.plot([], [], color=color, label=f"epsilon = {epsilon:g}")
    axes.plot([], [], color=INK, linestyle=(0, (3, 2)), label="epsilon_scaling = 0.5")
    axes.set(yscale="log", xscale="log", xlim=(1, MOST_ITERATIONS))
    axes.set_xlabel("iteration", color=INK)
    axes.set_title("marginal error", loc="left", color=INK, fontsize=11)
    axes.tick_params(which="both", colors=INK, length=0)
    axes.grid(axis="y", color=INK, alpha=0.22, linewidth=0.6)
    axes.spines[:].set(visible=False)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    save(figure, path)
    return results


# ---- colours ----


def sunset() -> np.ndarray:
    """(HEIGHT, WIDTH, 3), from 0 to 1: a sky from violet to yellow, the sun, the sea."""
    y, x = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    horizon = 0.62
    stops = [0, 0.25, 0.45, horizon]
    sky = np.stack(
        [
            np.interp(y, stops, channel)
            for channel in ((0.20, 0.62, 0.95, 1.0), (0.10, 0.22, 0.45, 0.80), (0.38, 0.42, 0.30, 0.42))
        ],
        axis=-1,
    )
    sun = np.hypot((x - 0.6) * WIDTH / HEIGHT, y - 0.5)
    sky += np.exp(-((sun / 0.22) ** 2))[..., None] * np.array([0.25, 0.25, 0.10])
    sky[sun < 0.075] = (1.0, 0.96, 0.75)
    waves = 0.5 + 0.5 * np.sin(90 * np.sqrt(np.maximum(y - horizon, 0)) + 5 * np.sin(9 * x))
    glitter = np.exp(-(((x - 0.6) / (0.05 + 0.5 * np.maximum(y - horizon, 0))) ** 2)) * waves
    sea = np.array([0.16, 0.12, 0.30]) + waves[..., None] * np.array([0.10, 0.05, 0.06])
    sea += glitter[..., None] * np.array([0.85, 0.55, 0.15])
    return np.clip(np.where((y > horizon)[..., None], sea, sky), 0, 1)


def forest() -> np.ndarray:
    """(HEIGHT, WIDTH, 3), from 0 to 1: rows of firs, the farther the paler, under a blue sky."""
    generator = np.random.default_rng(3)
    y, x = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    picture = np.array([0.45, 0.68, 0.88]) + (y[..., None] * np.array([0.6, 0.35, 0.1]))
    near, far = np.array([0.05, 0.20, 0.08]), np.array([0.62, 0.78, 0.62])
    for depth in np.linspace(0, 1, 5):
        foot, height = 0.45 + 0.5 * depth, 0.22 + 0.30 * depth
        tops = np.full_like(x, foot)
        for place in generator.uniform(-0.05, 1.05, int(26 - 12 * depth)):
            tall = height * generator.uniform(0.6, 1.0)
            tops = np.minimum(tops, foot - tall + np.abs(x - place) * (5.5 - 2 * depth))
        shade = far + (near - far) * depth**0.7
        light = 0.10 * generator.random(x.shape)[..., None] * np.array([0.7, 1.0, 0.4])
        picture = np.where((y > tops)[..., None], shade + light * (0.4 + depth), picture)
    return np.clip(picture, 0, 1)


def draw_colours(path: Path) -> dict[str, Transport]:
    """Each picture, and under it the same with the other's colours: every pixel takes the mean colour that it is sent to."""
    from matplotlib import pyplot

    pictures = sunset(), forest()
    x, y = (np.ascontiguousarray(picture.reshape(-1, 3), np.float32) for picture in pictures)
    found = sinkhorn(None, None, x=x, y=y, epsilon=COLOUR_EPSILON, epsilon_scaling=0.5, tolerance=1e-3)
    sent = found.apply(y) * len(x), found.apply_transpose(x) * len(y)  # a mean: masses are 1 / n
    titles = ("sunset", "forest", "sunset, the forest's colours", "forest, the sunset's colours")
    figure, axes = pyplot.subplots(2, 2, figsize=(7.2, 5.2), dpi=120, gridspec_kw={"wspace": 0.04, "hspace": 0.14})
    shown = [*pictures, *(colours.reshape(HEIGHT, WIDTH, 3) for colours in sent)]
    for one, picture, title in zip(axes.flat, shown, titles, strict=True):
        one.imshow(np.clip(picture, 0, 1), interpolation="nearest")
        one.set_title(title, loc="left", color=INK, fontsize=9)
        one.set_axis_off()
    save(figure, path)
    return {f"{len(x)} and {len(y)} pixels": found}


def save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path, transparent=True, bbox_inches="tight")
    pyplot.close(figure)
