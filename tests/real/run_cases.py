"""Run folders of cases, each a run.sh with what was expected of it, and print a table: name, passes, why not.

    python -m tests.real.run_cases [NAME...]

NAME: beginnings of folder names; all without. The cases are the folders of CASES, or of `cases` beside AZ_DATA (reports/ and
hostile/, "reports from use" and "situations made to break"). Each runs in a copy of the checkout, with PY (this interpreter)
and CASES (a copy of its folder) in its environment; the checkpoint that fine-tuning cases start from is made there once.
How its output is judged stands in tests/real/case_checks.py. Exit code 1 if one does not pass.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common.files import ROOT
from tests.real.case_checks import CHECKS, Check, verdict

MOVED = {  # what the cases call that the code has moved or named otherwise since
    r"data\.task_records": "tasks.records",
    r"\bt\.pieces\b": "t.tokens",
    r"corpus\.wikipedia": "corpus.reading.wikipedia",
    r"corpus\.tables import read_parquet": "corpus.reading.tables import read_columns as read_parquet",
    r"from language\.azerbaijani import normalise, fold_key": "from language.base import load_language; "
    "normalise = load_language('azerbaijani').normalise",
    r"read_wikipedia\((.*?), \{\}\)": r"read_wikipedia(\1, {'language': 'azerbaijani'})",
}
LONGEST = 400  # seconds of one case
SHOWN = 4  # last lines that are shown of a case that does not pass


def copied(folder: Path, into: Path) -> Path:
    """The cases in a writable place, with the names of modules that have moved."""
    shutil.copytree(folder, into, copy_function=shutil.copyfile)
    for path in [into, *into.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        if path.suffix in (".py", ".sh"):
            text = path.read_text(encoding="utf-8")
            for old, new in MOVED.items():
                text = re.sub(old, new, text)
            path.write_text(text, encoding="utf-8")
    return into


def copied_checkout(into: Path) -> Path:
    """The files of the checkout that git knows or would, and no run of it."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, into / name)
    return into


def run(script: str, checkout: Path, environment: dict[str, str]) -> tuple[int | str, str]:
    """(exit code, both outputs) of a shell script in the checkout; what it mounts is gone after it where the system allows."""
    may = subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0
    alone = ["unshare", "--mount"] if may else []
    process = subprocess.Popen(
        [*alone, "bash", "-c", script],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        out, code = process.communicate(timeout=LONGEST)[0], process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        out, code = process.communicate()[0], f"over {LONGEST} s"
    return code, out.decode(errors="replace").replace("\r", "\n")


def one(case: Path, cases: Path, checkout: Path) -> tuple[str, str, float]:
    """(why a case does not pass or "", its output, seconds)."""
    shutil.rmtree(Path(tempfile.gettempdir()) / "case-out", ignore_errors=True)
    shutil.rmtree(checkout / "in", ignore_errors=True)
    check = CHECKS.get(case.name, Check())
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {"CASES": str(cases), "C": str(cases / case.name), "PY": sys.executable}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    begun = time.monotonic()
    script = "\n".join([check.before, f"source {cases / case.name}/run.sh", check.after])
    code, output = run(script, checkout, environment)
    return verdict(check, output, code, checkout), output, time.monotonic() - begun


def main(names: list[str]) -> int:
    """Print the table as it grows."""
    given = os.environ.get("CASES") or (os.environ.get("AZ_DATA") and Path(os.environ["AZ_DATA"]).parent / "cases")
    if not given or not Path(given).is_dir():
        print("skipped: no folder of cases. Set CASES to it, or AZ_DATA to the real set that it lies beside.")
        return 0
    cases = [path.parent for path in sorted(Path(given).rglob("run.sh"))]
    cases = [case for case in cases if not names or any(case.name.startswith(name) for name in names)]
    if not cases:
        print(f"{given}: no folder with a run.sh{' of these names' if names else ''}.")
        return 2
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        checkout = copied_checkout(Path(temporary) / "checkout")
        places = {folder: copied(folder, Path(temporary) / folder.name) for folder in {case.parent for case in cases}}
        demo = "$PY prepare.py name=demo && $PY train.py name=demo budget.steps=5 threads=1"
        code, output = run(demo, checkout, os.environ | {"PY": sys.executable})
        if code:
            print(f"the demo's checkpoint could not be made:\n{output}")
            return 2
        print("| case | passes | why not | seconds |\n|---|---|---|---|")
        for case in cases:
            why, output, seconds = one(case, places[case.parent], checkout)
            failed += bool(why)
            print(f"| {case.parent.name}/{case.name} | {'no' if why else 'yes'} | {why} | {seconds:.0f} |", flush=True)
            if why:
                lines = [line for line in output.splitlines() if line.strip()][-SHOWN:]
                print("\n".join(f"    {line[:300]}" for line in lines), file=sys.stderr, flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
