"""The matrix of transfer between languages, to read: tables, curves over the target examples, lines for a terminal."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from common.html import GRID, SERIES, Section, fold, plain, svg, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ORACLE = "oracle: selected on the target's dev"


def shown(cell: dict[str, Any] | None) -> str:
    """A cell as text: the score with its interval, or why there is none."""
    if cell is None:
        return "–"
    if "missing" in cell:
        return f"no data: {cell['missing']}"
    return f"{100 * cell['score']:.1f} ({100 * cell['low']:.1f} to {100 * cell['high']:.1f})"


def matrix(result: dict[str, Any], setting: str) -> list[list[str]]:
    """Rows of sources, columns of targets; the diagonal is training in the language itself."""
    cells = {(cell["source"], cell["target"]): cell for cell in result["cells"] if cell["setting"] in (setting, "own")}
    sources = list(dict.fromkeys(cell["source"] for cell in result["cells"]))
    rows = [["trained on", *result["targets"]]]
    return rows + [[source, *(shown(cells.get((source, target))) for target in result["targets"])] for source in sources]


def pairs(result: dict[str, Any]) -> list[list[str]]:
    """A row for each pair of languages: scripts, fertility, shared tokens, and the score of every setting."""
    scripts = {language["language"]: language["script"] for language in result["languages"]}
    settings = list(dict.fromkeys(cell["setting"] for cell in result["cells"] if cell["setting"] != "own"))
    cells = {(cell["source"], cell["target"], cell["setting"]): cell for cell in result["cells"]}
    names = [ORACLE if setting == "oracle" else setting for setting in settings]
    rows = [["trained on", "tested on", "scripts", "tokens a word", "shared tokens, %", *names]]
    for pair in result["pairs"]:
        one, other = pair["source"], pair["target"]
        if one != other:
            about = [f"{scripts[one]}, {scripts[other]}", f"{pair['fertility']:.2f}", f"{100 * pair['shared']:.1f}"]
            rows.append([one, other, *about, *(shown(cells.get((one, other, setting))) for setting in settings)])
    return rows


def languages(result: dict[str, Any]) -> list[list[str]]:
    """A row for each language: script, sizes, why it is no source."""
    keys = list(result["languages"][0])
    return [keys, *([str(language[key]) for key in keys] for language in result["languages"])]


def curve(result: dict[str, Any]) -> str:
    """Score against k, a line for each pair; "" if only zero-shot was asked for."""
    points: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for cell in result["cells"]:
        if "score" in cell and cell["setting"] not in ("own", "oracle"):
            k = 0 if cell["setting"] == "zero-shot" else int(cell["setting"].removeprefix("k="))
            points.setdefault((cell["source"], cell["target"]), []).append((k, 100 * cell["score"]))
    if not any(len(line) > 1 for line in points.values()):
        return ""

    def draw(axes: "Axes") -> None:
        for number, ((source, target), line) in enumerate(points.items()):
            name = plain(f"{source} to {target}")
            colour = SERIES[number % len(SERIES)]
            axes.plot(
                range(len(line)), [score for _, score in sorted(line)], color=colour, marker="o", ms=3, lw=1.3, label=name
            )
        shots = sorted({k for line in points.values() for k, _ in line})
        axes.set_xticks(range(len(shots)), [str(k) for k in shots])
        axes.set_xlabel("training examples of the target")
        axes.set_ylabel(plain(result["metric"]))
        axes.grid(color=GRID, lw=0.8)
        axes.tick_params(length=0)
        axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0))

    return svg(draw, 7.2, 3.4)


def sections(results: Sequence[dict[str, Any]]) -> list[Section]:
    """The page's sections, one for each model and task."""
    found = []
    for number, result in enumerate(results):
        seeds = f"{result['seeds']} seed{'s' * (result['seeds'] > 1)}"
        lead = f"<p>{escape(result['metric'])}, {seeds}, 95 % intervals over seeds and examples.</p>"
        if not result["claim"]:
            lead += "<p><b>Shown without a claim:</b> the set is too small to tell languages apart.</p>"
        if result["latin"]:
            lead += "<p>Texts of languages in another script are in Latin, by their packs.</p>"
        content = lead + table(matrix(result, "zero-shot"), "sortable") + curve(result)
        content += fold("pairs of languages", table(pairs(result), "sortable"))
        content += fold("languages", table(languages(result), text=(6,)))
        found.append((f"t{number}", escape(f"{result['model']} on {result['task']}"), content))
    return found


def summary_lines(results: Sequence[dict[str, Any]]) -> list[str]:
    """The zero-shot matrices and the pairs as text."""
    lines = []
    for result in results:
        lines.append(f"{result['model']} on {result['task']}, {result['metric']}, zero-shot (diagonal: trained on it)")
        for rows in (matrix(result, "zero-shot"), pairs(result)):
            widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
            lines += [
                "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
            ]
            lines.append("")
    return lines
