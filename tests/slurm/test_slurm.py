"""docs/slurm.md: the scripts of that page, as they stand there, on a cluster of one node that lives as long as these tests.

All scripts start at once and each test waits for its own, because most of the time goes by in Slurm's and submitit's pauses.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from common.slurm import refused
from tests.conftest import PLAIN, ROOT, TINY, with_hooks
from tests.corpus.test_build import snapshot
from tests.slurm.cluster import NotHere, answer, cluster
from training.compare import compare, find_runs

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs" / "slurm.md").read_text(encoding="utf-8")
PATIENCE = 400  # seconds for one script on a busy machine
# The run that Slurm interrupts waits for the signal at step 10 of its first life, so that it comes in the middle of a run on
# any machine.
WAITS = """
import time
def on_step(run):
    while run.state.step == 10 and not run.stop and not [*run.folder.glob("checkpoints/*")]:
        time.sleep(0.01)
"""


def script(name: str) -> str:
    """The script of that name on the page."""
    (found,) = re.findall(rf"^```(?:bash|python)\n((?:#!/bin/bash\n)?# {re.escape(name)}\n.*?)^```$", PAGE, re.M | re.S)
    return found


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[dict[str, str]]:
    """The environment of a user of the cluster, in which `python` is the one that runs the tests."""
    for module in ("submitit", "dask_jobqueue"):  # looked for, not imported: dask_jobqueue takes Ctrl-C for itself
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed (requirements-extra.txt)")
    folder = tmp_path_factory.mktemp("slurm")
    try:
        with cluster(folder) as environment:
            (folder / "bin").mkdir()
            python = folder / "bin" / "python"
            python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
            python.chmod(0o755)
            own = {"PATH": f"{python.parent}{os.pathsep}{environment['PATH']}", "PYTHONPATH": str(ROOT)}
            dask = {"DASK_TEMPORARY_DIRECTORY": str(folder), "DASK_JOBQUEUE__SLURM__LOG_DIRECTORY": str(folder / "dask")}
            yield environment | PLAIN | own | dask
    except NotHere as why:
        pytest.skip(f"no Slurm cluster can be started here: {why}")


class Started:
    """A command that runs in the background; its output is in a file."""

    def __init__(self, folder: Path, environment: dict[str, str], *words: object) -> None:
        self.log = folder / "log"
        folder.mkdir(exist_ok=True)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([*map(str, words)], cwd=ROOT, env=environment, stdout=log, stderr=log)

    def ended(self) -> tuple[int, str]:
        """(exit code, output), once it has ended."""
        code = self.process.wait(PATIENCE)
        return code, self.log.read_text(encoding="utf-8")


class Scripts:
    """The scripts of the page, each in a folder of its own below `folder`."""

    def __init__(self, folder: Path, environment: dict[str, str], prepared: Path) -> None:
        self.folder, self.environment, self.prepared = folder, environment, prepared
        self.started: dict[str, Started] = {}

    def start(self, name: str, words: list[object], *before: object, text: str | None = None, own: str = "") -> None:
        """Start script `name` as `before` (bash, python, sbatch …) with `words` in the folder `own`."""
        place = self.folder / (own or name)
        place.mkdir()
        (place / name).write_text(text or script(name))
        self.started[own or name] = Started(place, self.environment, *before, place / name, *words)

    def train(self, own: str, *options: str, text: str | None = None) -> None:
        """train.sh on two ranks, for 40 steps that take dropout into account."""
        place = self.folder / own
        words = [f"workdir={self.prepared}", f"hydra.run.dir={place / 'run'}", *TINY, "budget.steps=40", "model.dropout=0.1"]
        size = ["--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1", f"--output={place / 'job'}"]
        words += ["checkpoint_every=null", "batch_tokens=2048"]
        self.start("train.sh", words, "sbatch", "--wait", *size, *options, text=text, own=own)


@pytest.fixture(scope="module")
def scripts(slurm, request, tmp_path_factory) -> Iterator[Scripts]:
    """All of the page's scripts, started."""
    prepared = request.getfixturevalue("prepared")  # which would be made before `slurm` can skip if it were an argument
    all_of = Scripts(tmp_path_factory.mktemp("scripts"), slurm, prepared)
    driver = all_of.folder / "driver.py"
    driver.write_text(with_hooks(WAITS))
    assert script("train.sh").count("python train.py") == 1
    waiting = script("train.sh").replace("python train.py", f"python {shlex.quote(str(driver))} train.py")
    all_of.train("stopped", "--time=60", "--signal=USR1@120", text=waiting)
    all_of.train("alone", "--time=60")
    place = f"workdir={all_of.folder / 'dask'}"
    all_of.start("corpus_on_slurm.py", [2, 1, place, *TINY], "python", own="dask")
    # A sweep's folders are named by the words of the command line, so what makes it tiny stands in a file.
    jobs = [f"workdir={prepared}", f"hydra.sweep.dir={all_of.folder / 'jobs'}", "clip=1.0,-1", *TINY]
    all_of.start("sweep.sh", jobs, "bash")
    try:
        yield all_of
    finally:
        for one in all_of.started.values():
            one.process.kill()
            one.process.wait()


def losses(run: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def stop_in_the_middle(scripts: Scripts, name: str) -> None:
    """Shorten the job's time once it waits at step 10, so that its --signal comes soon; its next life has the hour again."""
    place, process = scripts.folder / name, scripts.started[name].process

    def until(is_so) -> None:
        begun = time.monotonic()
        while not is_so():
            assert process.poll() is None and time.monotonic() - begun < PATIENCE, (place / "job").read_text()
            time.sleep(0.1)

    def limit(minutes: int) -> None:
        words = ["scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}"]
        subprocess.run(words, env=scripts.environment, check=True, timeout=30)

    # The line of step 10 itself comes after the wait.
    until(lambda: (place / "run" / "metrics.jsonl").exists() and len(losses(place / "run")) == 9)
    job = re.search(r"Submitted batch job (\d+)", (place / "log").read_text())[1]
    spent = answer(scripts.environment, "squeue", "--noheader", f"--jobs={job}", "--format=%M")  # [H:]M:SS
    limit(2 + int(spent.split(":")[-2]))
    until(lambda: "stopped on request" in (place / "job").read_text())
    limit(60)


def test_a_sweep_is_one_job_a_combination_and_names_those_that_failed(scripts):
    """Two of the four have a value that cannot be: they are named at the end, with the reason, and the others are complete."""
    code, said = scripts.started["sweep.sh"].ended()
    assert code == 2 and "Traceback" not in said, said
    assert "clip=-1" in said and "expected" in said and "the others went on" in said
    rows = compare(find_runs([scripts.folder / "jobs"]))
    assert [row.setting for row in rows] == [{"optimizer.lr": 1e-4}, {"optimizer.lr": 3e-4}]
    logs = [path.read_text() for path in (scripts.folder / "jobs" / ".submitit").glob("*/*_log.out")]
    assert len(logs) == 4 and all("JobEnvironment" in log for log in logs)


def test_a_run_of_two_ranks_is_stopped_by_slurm_requeued_and_ends_bitwise_equal(scripts):
    stop_in_the_middle(scripts, "stopped")
    ends = [scripts.started[name].ended() for name in ("alone", "stopped")]
    jobs = [(scripts.folder / name / "job").read_text() for name in ("alone", "stopped")]
    assert [code for code, _ in ends] == [0, 0], jobs
    assert "2 rank(s)" in jobs[0] and "stopped on request" not in jobs[0]
    assert "stopped on request at step 11" in jobs[1] and "going on from step 11" in jobs[1]
    # srun says it once for both ranks ("tasks 0-1") if they end together, else once for each.
    said = re.findall(r"tasks? ([\d,-]+): Exited with exit code 85", jobs[1])
    assert sorted(said) in (["0", "1"], ["0-1"], ["0,1"]) and jobs[1].count("2 rank(s)") == 2  # both ranks, both lives
    runs = [scripts.folder / name / "run" for name in ("alone", "stopped")]
    assert losses(runs[0]) == losses(runs[1]) and len(losses(runs[0])) == 40
    assert len({(run / "checkpoint" / "model.safetensors").read_bytes() for run in runs}) == 1


def test_a_benchmark_is_one_job_a_task_and_its_report_is_made_at_the_end(scripts):
    code, _ = scripts.started["alone"].ended()
    assert code == 0
    place, checkpoint = scripts.folder / "benchmark", scripts.folder / "alone" / "run"
    words = [f"workdir={place}", f"models=[{{name: tiny, checkpoint: {checkpoint}}}]", "baselines=[]", "seeds=[0]"]
    words += ["recipe.epochs=1", "device=cpu", "threads=1", "report.overlap=null"]
    scripts.start("benchmark.sh", words, "bash")
    code, said = scripts.started["benchmark.sh"].ended()
    assert code == 0, said
    assert "0 made now, 2 already complete" in said
    assert len([*place.glob("sweep/.submitit/*/*_log.out")]) == 2
    report = (place / "benchmark" / "report.md").read_text()
    assert "topic" in report and "ner" in report and (place / "benchmark" / "report.html").exists()


def test_a_corpus_on_dask_s_jobs_has_the_same_bytes(scripts):
    code, said = scripts.started["dask"].ended()
    assert code == 0, said
    ours, theirs = (snapshot(place / "corpus") for place in (scripts.folder / "dask", scripts.prepared))
    # The page names the command and the folder that it was made in, and the manifest has its digest.
    assert {name for name in ours if ours[name] != theirs.pop(name)} <= {"report.html", "manifest.json"} and not theirs
    assert [*(scripts.folder.parent).glob("slurm*/dask/*.out")], "the workers were no jobs"


def test_slurm_s_refusals_say_what_to_do(slurm, tmp_path):
    """No munge here, no controller, a partition that is not there: sbatch's own words, as submitit hands them on."""
    from submitit.core.utils import FailedJobError

    conf = Path(slurm["SLURM_CONF"]).read_text()
    broken = {
        "munge -n | unmunge": conf.replace("munge.socket", "no.socket"),
        "scontrol ping": re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", conf),
        "sinfo": conf,
    }
    for remedy, text in broken.items():
        (tmp_path / "slurm.conf").write_text(text)
        words = ["sbatch", "--partition=nowhere", "--wrap=true"]
        own = slurm | {"SLURM_CONF": str(tmp_path / "slurm.conf")}
        result = subprocess.run(words, env=own, capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 1
        told = refused(FailedJobError(result.stderr))
        assert told and remedy in told and "Without launcher=slurm" in told
