"""The report: every table, interval, plot and error list, from the folders of predictions and nothing else.

    python -m evaluation.report DIR... [--out report.html] [--pretraining RUN_DIR]... [--corpus report.json]
                                [--overlap overlap.jsonl]

Reads every seed-<n>/ below DIR (predictions-test.jsonl, predictions-dev.jsonl, summary.json) and writes report.html,
report.md, report.csv, report.tex and report-details.csv next to each other. The same files give the same bytes: no
date, no machine. --overlap takes the file of evaluation.leakage and adds scores on the clean part of the test sets.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import command
from common.files import read_json, write_text
from evaluation.results import collect


def build_report(
    folders: Sequence[str | Path],
    out_dir: str | Path,
    pretraining: Sequence[str | Path] | str | Path | None = None,
    corpus: str | Path | None = None,
    title: str = "Results",
    name: str = "report",
    overlap: str | Path | None = None,
) -> str:
    """Write <name>.html, .md, .csv, .tex and <name>-details.csv into `out_dir`; return the table for the terminal.

    `pretraining`: run folders whose metrics.jsonl gives the curves. `corpus`: the corpus room's report.json. `overlap`:
    the file of evaluation.leakage. Raises what `collect` raises, and UserError for a missing pre-training or corpus
    file. Nothing is written then.
    """
    from evaluation import page, tables  # drawing is slow to import, and a wrong folder is told before it
    from evaluation.costs import tuning_problems
    from evaluation.details import analyse

    report = collect(folders, title, overlap)
    report.problems += tuning_problems(report)
    details = analyse(report)
    runs = [pretraining] if isinstance(pretraining, str | Path) else list(pretraining or [])
    curves = {Path(run).resolve().name: read_curves(run) for run in runs}
    text = page.html_page(report, details, curves, read_json(corpus) if corpus else None)
    out = Path(out_dir)
    write_text(out / f"{name}.md", tables.markdown(report, details))
    write_text(out / f"{name}.csv", tables.csv_table(report))
    write_text(out / f"{name}-details.csv", tables.details_csv(report, details))
    write_text(out / f"{name}.tex", tables.latex(report))
    write_text(out / f"{name}.html", text)
    return tables.terminal(report)


def read_curves(run: str | Path) -> dict[str, list[tuple[int, Any]]]:
    """{"train": [(step, loss)], "heldout": [(step, {...})]} from a pre-training run's metrics.jsonl."""
    from common.files import read_jsonl

    curves: dict[str, list[tuple[int, Any]]] = {"train": [], "heldout": []}
    for _, row in read_jsonl(Path(run) / "metrics.jsonl"):
        if isinstance(row.get("heldout"), dict):
            curves["heldout"].append((row.get("step", 0), row["heldout"]))
        if isinstance(row.get("loss"), int | float):
            curves["train"].append((row.get("step", 0), row["loss"]))
    return curves


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.report", description=__doc__.split("\n", 1)[0])
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folders of benchmark.py or finetune.py")
    parser.add_argument("--out", help="the .html file; .md, .csv and .tex go beside it (default DIR/report.html)")
    parser.add_argument("--pretraining", action="append", metavar="RUN_DIR", help="a pre-training run, for its curves")
    parser.add_argument("--corpus", metavar="report.json", help="the report of the corpus")
    parser.add_argument("--overlap", metavar="overlap.jsonl", help="the file of python -m evaluation.leakage")
    parser.add_argument("--title", default="Results")
    options = parser.parse_args(arguments)
    out = Path(options.out) if options.out else Path(options.folders[0]) / "report.html"
    text = build_report(
        options.folders, out.parent, options.pretraining, options.corpus, options.title, out.stem, options.overlap
    )
    print(text)
    print(f"\n{out.with_suffix('.html')} (and .md, .csv, .tex beside it)")


if __name__ == "__main__":
    # Run by its name, this file is __main__: call the imported module, so that there is one Report class.
    from evaluation.report import main as run

    sys.exit(run())
