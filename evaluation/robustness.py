"""How scores fall when texts are perturbed: curves with intervals, what is kept of the score, the items that are lost.

From predictions of the same runs on the same items, unchanged and changed. The interval of a score is over seeds and
examples like that of the table (evaluation/statistics.py); the drop is paired over examples; the tests of all perturbations at
their largest share are adjusted after Holm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from common.html import GRID, MUTED, SERIES, fold, plain, svg, table
from evaluation.results import groups_of
from evaluation.statistics import Estimate, difference_interval, holm, sample, score_interval
from language.perturbations import PERTURBATIONS
from tasks.base import Kind
from tasks.scoring import score_predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Runs = Sequence[Sequence[dict[str, Any]]]  # records of every seed, the same examples in the same order


@dataclass
class Scoring:
    """How a task is scored."""

    kind: Kind
    labels: Sequence[str] | None
    metric: str
    positive: str | None

    def numbers(self, runs: Runs) -> tuple[list[Any], str]:
        """Numbers per example of each run, and their average."""
        scored = [score_predictions(run, self.kind, self.labels, self.metric, self.positive, full=False) for run in runs]
        return [one["per_example"] for one in scored], scored[0]["average"]


@dataclass
class Condition:
    """The test items with one share of one perturbation, and every seed's predictions of them."""

    name: str
    share: float
    changed: float  # share of the words that are not as before
    runs: Runs


def curves(clean: Runs, conditions: Sequence[Condition], scoring: Scoring) -> dict[str, Any]:
    """{"clean": estimate, "points": one a condition}; each point with its score, what it keeps of the clean one, the drop.

    p of the drop is adjusted over the perturbations at their largest share, and None at the other shares.
    """
    numbers, average = scoring.numbers(clean)
    groups = groups_of(clean[0], scoring.kind.name)
    whole = sample(numbers, average, groups)
    base, points = score_interval(whole), []
    for condition in conditions:
        own = sample(scoring.numbers(condition.runs)[0], average, groups)
        score, drop = score_interval(own), difference_interval(own, whole)
        points.append(
            {
                "perturbation": condition.name,
                "share": condition.share,
                "words_changed": condition.changed,
                **_shown(score, "score"),
                "kept": score.value / base.value if base.value > 0 else None,
                **_shown(drop, "difference"),
                "p": drop.p,
            }
        )
    largest = {point["perturbation"]: point["share"] for point in sorted(points, key=lambda point: point["share"])}
    last = [point for point in points if point["share"] == largest[point["perturbation"]]]
    adjusted = dict(zip(map(id, last), holm([point["p"] for point in last]), strict=True))
    for point in points:
        point["p"] = adjusted.get(id(point))
    return {"clean": _shown(base, "score"), "seeds": len(clean), "examples": len(clean[0]), "points": points}


def _shown(estimate: Estimate, name: str) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def lost_items(clean: Runs, condition: Condition, scoring: Scoring, most: int) -> list[dict[str, Any]]:
    """The items that most seeds get right unchanged and wrong changed, by the number of seeds; `most` at most."""

    def right(runs: Runs, number: int) -> int:
        return sum(not scoring.kind.is_wrong(run[number]) for run in runs)

    found = []
    for number, record in enumerate(clean[0]):
        before, after = right(clean, number), right(condition.runs, number)
        if before > after:
            changed = next(run[number] for run in condition.runs if scoring.kind.is_wrong(run[number]))
            text, gold, _ = _readable(scoring.kind, record)
            new, _, predicted = _readable(scoring.kind, changed)
            known = {"id": record["id"], "perturbation": condition.name, "share": condition.share}
            found.append(known | {"text": text, "changed": new, "gold": gold, "predicted": predicted, "lost": before - after})
    return sorted(found, key=lambda item: (-item["lost"], str(item["id"])))[:most]


def _readable(kind: Kind, record: dict[str, Any]) -> tuple[str, str, str]:
    parts, gold, predicted = kind.shown(record)
    return (" " if record.get("words") else "").join(part for part, _ in parts), gold, predicted


# ---------------------------------------------------------------- to read


def percent(value: float | None) -> str:
    """A share as a percentage; – for None."""
    return "–" if value is None else f"{100 * value:.1f}"


HEADER = ["perturbation", "share, %", "words changed, %", "score", "95 %", "kept, %", "difference", "95 %", "p"]


def row_of(point: dict[str, Any]) -> list[str]:
    """A row of the table from one point of the curves."""
    p = point["p"]
    return [
        point["perturbation"],
        f"{100 * point['share']:.0f}",
        percent(point["words_changed"]),
        percent(point["score"]),
        f"{percent(point['score_low'])} to {percent(point['score_high'])}",
        percent(point["kept"]),
        percent(point["difference"]),
        f"{percent(point['difference_low'])} to {percent(point['difference_high'])}",
        "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}",
    ]


def section(result: dict[str, Any]) -> str:
    """One model on one task as HTML: plot, table, lost items."""
    clean, points = result["clean"], result["points"]
    lead = (
        f"<p><b>{escape(result['model'])}</b> on {escape(result['task'])}: {escape(result['metric'])} "
        f"{percent(clean['score'])} ({percent(clean['score_low'])} to {percent(clean['score_high'])}) on the "
        f"{result['examples']} unchanged items, {result['seeds']} seed{'s' * (result['seeds'] > 1)}. Kept: the score on "
        "changed items over that on unchanged ones. p: of the difference at the largest share, after Holm.</p>"
    )
    named = [[name, own.unit, own.what] for name, own in PERTURBATIONS.items() if name in {p["perturbation"] for p in points}]
    legend = table([["perturbation", "share of", "what it does"], *named], text=(2,))
    lost = ""
    for name in dict.fromkeys(item["perturbation"] for item in result["lost"]):
        rows = [
            [item["text"], item["changed"], item["gold"], item["predicted"], str(item["lost"])]
            for item in result["lost"]
            if item["perturbation"] == name
        ]
        lost += fold(f"lost by {name}", table([["text", "changed", "gold", "predicted", "seeds"], *rows], text=(0, 1, 2, 3)))
    drawn = _plot(result) if len({point["share"] for point in points}) > 1 else ""
    return lead + drawn + table([HEADER, *map(row_of, points)], "sortable") + fold("what each does", legend) + lost


def _plot(result: dict[str, Any]) -> str:
    """Score against share, one line for each perturbation; the band is the 95 % interval."""
    names = list(dict.fromkeys(point["perturbation"] for point in result["points"]))
    base = 100 * result["clean"]["score"]

    def draw(axes: "Axes") -> None:
        for number, name in enumerate(names):
            colour = SERIES[number % len(SERIES)]
            own = [point for point in result["points"] if point["perturbation"] == name]
            xs = [0, *(100 * point["share"] for point in own)]
            axes.plot(
                xs, [base, *(100 * point["score"] for point in own)], color=colour, lw=1.5, marker="o", ms=3, label=plain(name)
            )
            low = [100 * result["clean"]["score_low"], *(100 * point["score_low"] for point in own)]
            high = [100 * result["clean"]["score_high"], *(100 * point["score_high"] for point in own)]
            axes.fill_between(xs, low, high, color=colour, alpha=0.08, lw=0)
        axes.axhline(base, color=MUTED, lw=0.9, ls=(0, (4, 3)))
        axes.set_xlabel("share that is changed, %")
        axes.set_ylabel(plain(result["metric"]))
        axes.grid(color=GRID, lw=0.8)
        axes.tick_params(length=0)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))

    return svg(draw, 7.2, 3.4)
