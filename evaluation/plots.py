"""Plots as inline SVG: the same input gives the same bytes, and colours come from the page's style sheet."""

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evaluation.results import Average, Cell
    from evaluation.statistics import Estimate

# Drawn in these colours and then renamed, so that a dark page shows light ink.
INK, ACCENT, MUTED, GRID = "#010203", "#010204", "#010205", "#010206"
SERIES = ["#3b76c4", "#d9822b", "#2f9e6e", "#b5487a", "#7d62c9", "#8a8f3a", "#3fa3b5", "#c25b4e", "#6f7b8a", "#a5793d"]
_STYLE = {INK: "currentColor", ACCENT: "var(--accent)", MUTED: "var(--muted)", GRID: "var(--line)"}


def svg(draw: "Callable[[Axes], None]", width: float, height: float) -> str:
    """Run `draw(axes)` on a figure of width x height inches and return it as an <svg> element.

    Fixed hash salt and no metadata make it reproducible; text stays text.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {"svg.hashsalt": "report", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"}
    ink = {"text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": MUTED}
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "svg", **settings, **ink}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.set_axisbelow(True)
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" ([^>]*?)height="[^"]*"', r'<svg role="img" \1\2', text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*" ([^>]*?)width="[^"]*"', r'<svg role="img" \1\2', text, count=1)
    for drawn, named in _STYLE.items():
        text = text.replace(drawn, named)
    return text


def _plain(name: str) -> str:
    """A name in which a dollar sign does not start a formula."""
    return name.replace("$", r"\$")


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
        axes.set_yticks(list(places), [_plain(cell.model) for cell in cells])
        axes.set_xlim(0, 100)
        axes.set_xlabel(metric)
        axes.grid(axis="x", color=GRID, lw=0.8)
        axes.tick_params(length=0)

    return svg(draw, 4.6, 0.9 + 0.32 * len(cells))


def lines(series: dict[str, list[tuple[float, float]]], x: str, y: str, faint: Sequence[str] = ()) -> str:
    """Curves of (x, y) points with a legend; names in `faint` are drawn thin."""

    def draw(axes: "Axes") -> None:
        for number, (name, curve) in enumerate(series.items()):
            colour, thin = SERIES[number % len(SERIES)], name in faint
            dashes = (None, (4, 2), (1, 1.5))[number // len(SERIES) % 3]  # more curves than colours: another line
            xs, ys = [p[0] for p in curve], [p[1] for p in curve]
            marker = None if thin or len(curve) > 40 else "o"
            axes.plot(
                xs,
                ys,
                color=colour,
                dashes=dashes or (),
                lw=0.9 if thin else 1.8,
                alpha=0.7 if thin else 1,
                marker=marker,
                ms=3,
                label=_plain(name),
            )
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(color=GRID, lw=0.8)
        axes.tick_params(length=0)
        legend = axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
        legend.set_in_layout(True)

    return svg(draw, 7.2, 3.2)


def reliability_plot(curves: dict[str, list[tuple[float, float, int]]]) -> str:
    """Accuracy against confidence, one curve a model, dots sized by how many examples a bin holds; 15 equal bins."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls=(0, (4, 3)))
        for number, (name, curve) in enumerate(curves.items()):
            colour, total = SERIES[number % len(SERIES)], sum(count for _, _, count in curve)
            xs, ys = [x for x, _, _ in curve], [y for _, y, _ in curve]
            axes.plot(xs, ys, color=colour, lw=1.4, label=_plain(name))
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
    """Scores of the parts of a test set with 95 % intervals, one colour a model, points of a part side by side."""
    names = list(dict.fromkeys(name for points in parts.values() for name, _ in points))

    def draw(axes: "Axes") -> None:
        for number, (model, points) in enumerate(parts.items()):
            shift = 0.6 * ((number + 0.5) / len(parts) - 0.5)
            xs = [names.index(name) + shift for name, _ in points]
            ys = [100 * e.value for _, e in points]
            bars = [[100 * (e.value - e.low) for _, e in points], [100 * (e.high - e.value) for _, e in points]]
            colour = SERIES[number % len(SERIES)]
            axes.errorbar(xs, ys, yerr=bars, fmt="o", ms=3.5, color=colour, elinewidth=1.1, label=_plain(model))
        axes.set_xticks(range(len(names)), [_plain(name) for name in names])
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(axis="y", color=GRID, lw=0.8)
        axes.tick_params(length=0)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))

    return svg(draw, 5.6, 3.0)


def cost_plot(points: "dict[str, tuple[float, Average]]", front: Sequence[str] = ()) -> str:
    """Average score with its interval against hours, {model: (hours, score)}, hours on a log scale. A line joins the models
    of `front`, that none other beats for less."""
    hours = [point[0] for point in points.values()]
    narrow = max(hours) < 10 * min(hours)  # then a power of ten alone may not be on the axis

    def draw(axes: "Axes") -> None:
        for number, (model, (hours, score)) in enumerate(points.items()):
            colour = SERIES[number % len(SERIES)]
            bars = [[100 * (score.value - score.low)], [100 * (score.high - score.value)]]
            axes.errorbar([hours], [100 * score.value], yerr=bars, fmt="o", color=colour, capsize=3, label=_plain(model))
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


def pretraining_plots(curves: dict[str, dict[str, list[tuple[int, Any]]]]) -> list[tuple[str, str]]:
    """(caption, svg) of the loss curves of all runs, and of bits per character per source for each run."""
    losses: dict[str, list[tuple[float, float]]] = {}
    whole: dict[str, list[tuple[float, float]]] = {}
    faint = []
    for name, run in curves.items():
        if run["train"]:
            losses[f"{name}, training"] = run["train"]
            faint.append(f"{name}, training")
        held = [(step, value["loss"]) for step, value in run["heldout"] if value.get("loss") is not None]
        if held:
            losses[f"{name}, held-out"] = held
        bits = [(s, v["bits_per_character"]) for s, v in run["heldout"] if v.get("bits_per_character") is not None]
        if bits:
            whole[name] = bits
    plots = []
    if losses:
        plots.append(("Loss of the masked pieces (nats)", lines(losses, "step", "loss", faint)))
    if len(whole) > 1:
        plots.append(("Held-out bits per character, whole", lines(whole, "step", "bits per character")))
    for name, run in curves.items():
        sources: dict[str, list[tuple[float, float]]] = {}
        for step, value in run["heldout"]:
            for source, part in sorted((value.get("sources") or {}).items()):
                if part.get("bits_per_character") is not None:
                    sources.setdefault(source, []).append((step, part["bits_per_character"]))
        if name in whole:
            sources = {"all": whole[name], **sources}
        if sources:
            plots.append((f"{name}: held-out bits per character by source", lines(sources, "step", "bits per character")))
    return plots
