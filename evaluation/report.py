"""The report: every table, interval, plot and error list, from folders of predictions alone.

    python -m evaluation.report --pretraining RUN_DIR [--out report.html]         one page on pre-training alone
    python -m evaluation.report DIR... [--out report.html] [--pretraining RUN_DIR]... [--corpus report.json]
                                [--overlap overlap.jsonl]

Reads every seed-<n>/ below DIR (predictions-test.jsonl, predictions-dev.jsonl, summary.json) and writes report.html,
report.md, report.csv, report.tex and report-details.csv next to each other. The same files give the same bytes: date,
commit, command and machine on the page are those recorded by the runs. --overlap takes the file of evaluation.leakage
and adds scores on the clean part of the test sets.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError, command
from common.files import read_json, write_text
from evaluation.results import collect
from training.page import named_runs, origin_of_runs, read_curves, write_page


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
    from evaluation import page, tables  # drawing is slow to import, and a wrong folder is reported first
    from evaluation.costs import tuning_problems
    from evaluation.details import analyse

    report = collect(folders, title, overlap)
    report.problems += tuning_problems(report)
    details = analyse(report)
    runs = [pretraining] if isinstance(pretraining, str | Path) else list(pretraining or [])
    curves = {name: read_curves(run) for name, run in named_runs(runs).items()}
    text = page.html_page(report, details, curves, read_json(corpus) if corpus else None, origin_of_runs(folders))
    out = Path(out_dir)
    write_text(out / f"{name}.md", tables.markdown(report, details))
    write_text(out / f"{name}.csv", tables.csv_table(report))
    write_text(out / f"{name}-details.csv", tables.details_csv(report, details))
    write_text(out / f"{name}.tex", tables.latex(report))
    write_text(out / f"{name}.html", text)
    return tables.terminal(report)


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.report", description=__doc__.split("\n", 1)[0])
    parser.add_argument("folders", nargs="*", metavar="DIR", help="folders of benchmark.py or finetune.py")
    parser.add_argument("--out", help="the .html file; .md, .csv and .tex go beside it (default DIR/report.html)")
    parser.add_argument("--pretraining", action="append", metavar="RUN_DIR", help="a pre-training run, for its curves")
    parser.add_argument("--corpus", metavar="report.json", help="the report of the corpus")
    parser.add_argument("--overlap", metavar="overlap.jsonl", help="the file of python -m evaluation.leakage")
    parser.add_argument("--title", default="Results")
    options = parser.parse_args(arguments)
    if not options.folders:
        if not options.pretraining:
            raise UserError("no folder named. Give the folders of benchmark.py or finetune.py, or --pretraining RUN_DIR.")
        out = Path(options.out) if options.out else Path(options.pretraining[0]) / "report.html"
        write_page(options.pretraining, out, options.title if options.title != "Results" else "Pre-training")
        print(f"{out}")
        return
    out = Path(options.out) if options.out else Path(options.folders[0]) / "report.html"
    text = build_report(
        options.folders, out.parent, options.pretraining, options.corpus, options.title, out.stem, options.overlap
    )
    print(text)
    print(f"\n{out.with_suffix('.html')} (and .md, .csv, .tex beside it)")


if __name__ == "__main__":
    # Run by name, this file is __main__: call the imported module, so that there is only one Report class.
    from evaluation.report import main as run

    sys.exit(run())
