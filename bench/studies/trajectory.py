"""How an answer of the model becomes certain under Jacobi decoding, round by round: in characters, and with --png as a picture."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import fastdistill as fd
from bench.lib.models import add_model_arguments
from bench.lib.plot import INK, LIMIT, OURS, THEIRS, picture
from bench.lib.prompts import KINDS, load
from bench.lib.report import Report
from fastdistill.errors import ArgumentError
from fastdistill.show.trajectory import DRAWN, FINAL, GUESSED, MEANINGS, RECYCLED, RIGHT, WRONG, trajectory_cells

# What a token is until it is final is pale, the moment in which it becomes so strong.
COLORS = {
    WRONG: (OURS, 0.35),
    RIGHT: (THEIRS[0], 0.35),
    FINAL: (LIMIT, 0.15),
    DRAWN: (INK, 1.0),
    GUESSED: (THEIRS[0], 1.0),
    RECYCLED: (THEIRS[1], 1.0),
}  # of `trajectory_cells`: colour and opacity


def add_arguments(parser: ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--prompt", default="table-plants", metavar="NAME", help="of bench/lib/prompts (default: %(default)s)"
    )
    parser.add_argument("--tokens", type=int, default=96, metavar="N", help="most new tokens (default: %(default)s)")
    parser.add_argument("--block", type=int, default=16, metavar="N", help="tokens of a block (default: %(default)s)")
    parser.add_argument("--max-blocks", type=int, default=1, metavar="N", help="most blocks (default: %(default)s)")
    parser.add_argument("--png", type=picture, metavar="FILE.png", help="the picture")


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    prompts = {prompt.name: prompt for kind in KINDS for prompt in load(kind)}
    if options.prompt not in prompts:
        raise ArgumentError(f"--prompt must be one of {', '.join(prompts)}, got {options.prompt}")
    prompt = prompts[options.prompt]
    model = fd.load(options.model, threads=max(options.threads))
    text = [{"role": "user", "content": prompt.text}] if prompt.chat else prompt.text
    decoder = fd.Jacobi(options.block, max_blocks=options.max_blocks, adaptive=False, trace=True)
    answer = model.generate(text, max_tokens=options.tokens, decoder=decoder)
    stats = answer.stats
    report.row(
        prompt=prompt.name, tokens=stats.new_tokens, forwards=stats.forwards, tokens_a_forward=stats.tokens_per_forward,
        from_the_pool=stats.recycled,
    )  # fmt: skip
    report.note(fd.show.trajectory(answer, label=lambda token: model.tokenizer.decode([token])))
    if options.png:
        draw(options.png, {"": answer})
        report.note(f"picture in {options.png}")
    return report


def draw(path: Path, generations: Mapping[str, fd.Generation]) -> None:
    """The pictures of `show.trajectory`, by title: a row a round, the prompt's forward above them, and a column a token."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Patch

    drawn = [trajectory_cells(generation) for generation in generations.values()]
    rows, columns = (max(cells.shape[axis] for cells in drawn) for axis in (0, 1))
    size = 8 * len(drawn), 1.2 + 7 * rows / max(columns, 1)
    figure, panels = pyplot.subplots(1, len(drawn), figsize=size, dpi=160, sharey=True, squeeze=False)
    for axes, title, cells in zip(panels[0], generations, drawn, strict=True):
        picture = np.zeros((*cells.shape, 4))
        for cell, (color, opacity) in COLORS.items():
            picture[cells == cell] = to_rgba(color, opacity)
        extent = -0.5, cells.shape[1] - 0.5, cells.shape[0] - 1.5, -1.5
        axes.imshow(picture, interpolation="nearest", extent=extent)
        axes.set_ylim(rows - 1.5, -1.5)
        axes.set_title(title, loc="left", color=INK, fontsize=11)
        axes.set_xlabel("token of the text", color=INK)
        axes.tick_params(colors=INK, length=0)
        axes.spines[:].set_visible(False)
    panels[0][0].set_ylabel("round", color=INK)
    legend = [Patch(color=to_rgba(color, opacity), label=MEANINGS[cell]) for cell, (color, opacity) in COLORS.items()]
    panels[0][0].legend(handles=legend, loc="lower left", frameon=False, labelcolor=INK, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, transparent=True)
    pyplot.close(figure)
