"""Published numbers for tasks of the same name: marked reference rows beside ours, never tested or averaged.

None was run again here. The paper's table was not available; its six-task numbers are read from the first author's chart
("chart": within 0.5 points, hidden markers 0.8), whose averaging of F1 is not stated. Splits may differ from ours: the data
sets of azsci, aznsp and ldquad have no official test part. A number is shown under a task only if the task has exactly that
name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

PAPER = "Open foundation models for Azerbaijani language (arXiv 2407.02337)"
CHART = f"first author's chart to {PAPER}, read to 0.5 points; F1, averaging not stated"
HIDDEN = f"first author's chart to {PAPER}, marker hidden, read to 0.8 points; F1, averaging not stated"
CARD = "model card of a co-author (hajili), own 80/20 split, 1,152 rows, one seed; weighted F1"
WIKIANN_CARD = "model card azizbarank, 3 epochs; entity F1"


@dataclass(frozen=True)
class Published:
    """One published score, in points as printed."""

    model: str
    task: str
    score: float
    source: str

    @property
    def text(self) -> str:
        """The score with as many decimals as its source prints: one for the chart, two for others."""
        return f"{self.score:.1f}" if round(self.score, 1) == self.score else f"{self.score:.2f}"


_CHART_TASKS = ("aznsp", "mrpc", "wikiann", "azsci", "squad", "ldquad")
_CHART_ROWS = {  # (score, whether the marker is hidden) in the order of _CHART_TASKS
    "aLLMA-Base": "76.0 80.0 92.4 90.8 71.4 85.8",
    "BERT-Base-MULTI": "72.5 79.6h 91.7h 87.3 70.9h 83.6",
    "BERT-Base-AZE": "74.3 79.7h 92.0h 89.0 70.8 64.5",
    "BERT-Base (English)": "62.2 75.0 91.0 77.0 56.3 75.0",
    "BERT-Scratch": "51.0 65.5 73.0 72.4 16.0 26.9",
}
_CARDS = (
    Published("XLM-R-Large", "azsci", 91.21, CARD),
    Published("mDeBERTa-v3-base", "azsci", 86.85, CARD),
    Published("XLM-R-Base", "azsci", 86.45, CARD),
    Published("mBERT (azizbarank)", "wikiann", 90.25, WIKIANN_CARD),
)
AVERAGE = ("aLLMA-Base", 82.46)  # printed in the paper, over six tasks: almost certainly those of the chart

ALL = (
    tuple(
        Published(model, task, float(cell.rstrip("h")), HIDDEN if cell.endswith("h") else CHART)
        for model, row in _CHART_ROWS.items()
        for task, cell in zip(_CHART_TASKS, row.split(), strict=True)
    )
    + _CARDS
)


def published_rows(tasks: Sequence[str]) -> dict[str, dict[str, Published]]:
    """{model: {task: number}} of the models with a published number for one of `tasks`, in a fixed order."""
    rows: dict[str, dict[str, Published]] = {}
    for entry in ALL:
        if entry.task in tasks:
            rows.setdefault(entry.model, {})[entry.task] = entry
    return rows


def published_average(model: str, tasks: Sequence[str]) -> float | None:
    """The average printed in the paper, if the table has exactly its six tasks."""
    return AVERAGE[1] if model == AVERAGE[0] and sorted(tasks) == sorted(_CHART_TASKS) else None


def notes(tasks: Sequence[str], metrics: dict[str, str]) -> list[str]:
    """Differences between the published numbers and ours, one sentence for each task and source."""
    found: dict[tuple[str, str], list[str]] = {}
    for model, row in published_rows(tasks).items():
        for task, entry in row.items():
            found.setdefault((task, entry.source), []).append(model)
    return [
        f"{task}: {', '.join(models)}: {source}. Ours here: {metrics[task]}."
        for (task, source), models in sorted(found.items())
    ]
