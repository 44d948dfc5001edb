"""Plots of the report as inline SVG: the same input gives the same bytes; colours come from the page's style sheet."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.html import ACCENT, GRID, INK, MUTED, SERIES, plain, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evaluation.results import Average, Cell
    from evaluation.statistics import Estimate


def score_bars(cells: "Sequence[Cell]", floor: float, metric: str) -> str:
    """Horizontal bars with 95 % intervals, best model on top; the dashed line is the best constant answer."""
    cells = sorted(cells, key=lambda cell: (cell.estimate.value, cell.model))

    def draw(axes: "Axes") -> None:
        places = range(len(cells))
        values = [100 * cell.estimate.value for cell in cells]
        lower = [v - 100 * cell.estimate.low for v, cell in zip(values, cells, strict=True)]
        upper = [100 * cell.estimate.high - v for v, cell in zip(values, cells, strict=True)]
        colours = [MUTED if cell.baseline else ACCENT for cell in cells]
        axes.barh(places, values, height=0.62, color=colours, alpha=0.55)
        axes.errorbar(values, places, xerr=[lower, upper], fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
        for place, cell in zip(places, cells, strict=True):
            dots = [100 * run.scored["score"] for run in cell.runs] if len(cell.runs) > 1 else []
            axes.plot(dots, [place - 0.22] * len(dots), "o", ms=2.5, color=INK, alpha=0.6)
        axes.axvline(100 * floor, color=INK, lw=0.9, ls=(0, (4, 3)))
        axes.set_yticks(list(places), [plain(cell.model) for cell in cells])
        axes.set_xlim(0, 100)
        axes.set_xlabel(metric)
        axes.grid(axis="x", color=GRID, lw=0.8)
        axes.tick_params(length=0)

    return svg(draw, 4.6, 0.9 + 0.32 * len(cells))


def reliability_plot(curves: dict[str, list[tuple[float, float, int]]]) -> str:
    """Accuracy against confidence, one curve for each model, dots sized by the number of examples in a bin; 15 equal bins."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls=(0, (4, 3)))
        for number, (name, curve) in enumerate(curves.items()):
            colour, total = SERIES[number % len(SERIES)], sum(count for _, _, count in curve)
            xs, ys = [x for x, _, _ in curve], [y for _, y, _ in curve]
            axes.plot(xs, ys, color=colour, lw=1.4, label=plain(name))
            axes.scatter(xs, ys, s=[4 + 120 * count / total for _, _, count in curve], color=colour, alpha=0.5, lw=0)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("confidence")
        axes.set_ylabel("share that is right")
        axes.grid(color=GRID, lw=0.8)
        axes.tick_params(length=0)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))

    return svg(draw, 5.6, 3.2)


def parts_plot(parts: "dict[str, list[tuple[str, Estimate]]]", x: str, y: str) -> str:
    """Scores of the slices of a test set with 95 % intervals, one colour for each model, points of a slice side by side."""
    names = list(dict.fromkeys(name for points in parts.values() for name, _ in points))

    def draw(axes: "Axes") -> None:
        for number, (model, points) in enumerate(parts.items()):
            shift = 0.6 * ((number + 0.5) / len(parts) - 0.5)
            xs = [names.index(name) + shift for name, _ in points]
            ys = [100 * e.value for _, e in points]
            bars = [[100 * (e.value - e.low) for _, e in points], [100 * (e.high - e.value) for _, e in points]]
            colour = SERIES[number % len(SERIES)]
            axes.errorbar(xs, ys, yerr=bars, fmt="o", ms=3.5, color=colour, elinewidth=1.1, label=plain(model))
        axes.set_xticks(range(len(names)), [plain(name) for name in names])
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(axis="y", color=GRID, lw=0.8)
        axes.tick_params(length=0)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))

    return svg(draw, 5.6, 3.0)


def cost_plot(points: "dict[str, tuple[float, Average]]", front: Sequence[str] = ()) -> str:
    """Average score with its interval against hours, {model: (hours, score)}, hours on a log scale. A line joins the models of
    `front`, which no other model beats at lower cost."""
    hours = [point[0] for point in points.values()]
    narrow = max(hours) < 10 * min(hours)  # then no power of ten may be on the axis

    def draw(axes: "Axes") -> None:
        for number, (model, (hours, score)) in enumerate(points.items()):
            colour = SERIES[number % len(SERIES)]
            bars = [[100 * (score.value - score.low)], [100 * (score.high - score.value)]]
            axes.errorbar([hours], [100 * score.value], yerr=bars, fmt="o", color=colour, capsize=3, label=plain(model))
        best = sorted((points[model][0], points[model][1].value) for model in front)
        axes.plot([hours for hours, _ in best], [100 * score for _, score in best], color=MUTED, lw=1, ls=(0, (4, 3)), zorder=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if narrow else "")
        axes.set_xlabel("hours: pre-training, tuning and fine-tuning, as far as measured")
        axes.set_ylabel("average over tasks")
        axes.grid(color=GRID, lw=0.8)
        axes.tick_params(length=0)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))

    return svg(draw, 7.2, 3.0)
