"""Train for a given time, kill at random, resume: what grows in a process, and whether the end is that of an uninterrupted run.

    python -m training.soak minutes=60 [seed=0] [steps=600] [folder=runs/soak] [words of train.py ...]

One run of `steps` steps is left alone. Then the same run is made again and again in another folder, killed by SIGKILL after a
random time and started again; each end is compared with the first run bit by bit. While they run, resident memory, open files,
threads and the disk space of checkpoints are sampled. A slope is that of a line through the samples of one process once it
trains; the interval is Student's over the processes, 95 %. Linux only. <folder>/soak.json has the figures; the exit code is 1
if an end differed.
"""

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError, command
from common.files import ROOT, write_json
from evaluation.statistics import student_half

EVERY = 0.5  # seconds between samples
SETTLED = 5.0  # seconds after a process' first log line from which samples count
LEAST = 8  # samples of a process from which it has a slope
OWN = {"minutes": 5.0, "seed": 0, "steps": 600, "folder": "runs/soak"}
UNITS = {"memory": "MiB an hour", "files": "open files an hour", "threads": "threads an hour", "disk": "MiB an hour"}


@dataclass
class Life:
    """One process: its samples (seconds, memory MiB, open files, threads, disk MiB), its exit code, and how long it lived."""

    samples: list[tuple[float, ...]] = field(default_factory=list)
    code: int = 0
    seconds: float = 0.0


def live(words: list[str], run: Path, kill_after: float | None) -> Life:
    """One process of train.py on `run`: to its end, or killed after that many seconds."""
    begun, life, training = time.time(), Life(), None
    with open(run.parent / f"{run.name}.log", "ab") as log:
        process = subprocess.Popen([sys.executable, "train.py", *words], cwd=ROOT, stdout=log, stderr=log)
    metrics = run / "metrics.jsonl"
    try:
        while process.poll() is None:
            now = time.time()
            if kill_after is not None and now - begun > kill_after:
                process.kill()
                break
            if training is None and metrics.exists() and metrics.stat().st_mtime > begun:
                training = now
            if training is not None and now - training > SETTLED and (sample := look(process.pid, run)):
                life.samples.append((now, *sample))
            time.sleep(EVERY)
    finally:
        if process.poll() is None:
            process.kill()
        life.code, life.seconds = process.wait(), time.time() - begun
    return life


def look(pid: int, run: Path) -> tuple[float, ...] | None:
    """(memory MiB, open files, threads, disk MiB of everything but the log of metrics) now; None if the process has ended."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        memory, threads = int(lines["VmRSS"].split()[0]) / 1024, int(lines["Threads"])
    except (OSError, KeyError):
        return None
    size = 0
    for path in run.rglob("*"):
        try:
            size += path.stat().st_size if path.is_file() and path.name != "metrics.jsonl" else 0
        except OSError:  # a checkpoint that is removed now
            continue
    return memory, float(files), float(threads), size / 2**20


def slopes(lives: Sequence[Life]) -> dict[str, dict[str, Any]]:
    """{figure: mean slope an hour over the processes, interval, number of processes}; None where there are too few."""
    found: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(UNITS, start=1):
        each = []
        for life in lives:
            if len(life.samples) >= LEAST:
                values = np.array(life.samples)
                each.append(float(np.polyfit((values[:, 0] - values[0, 0]) / 3600, values[:, column], 1)[0]))
        mean = float(np.mean(each)) if each else None
        half = student_half(each)
        low, high = (None, None) if mean is None or half is None else (mean - half, mean + half)
        found[name] = {"mean": mean, "low": low, "high": high, "processes": len(each), "unit": UNITS[name]}
    return found


def differences(run: Path, other: Path) -> list[str]:
    """What differs between the ends of two runs: weights to the bit, losses of every step, held-out scores."""
    found = []
    weights = [(folder / "checkpoint" / "model.safetensors").read_bytes() for folder in (run, other)]
    if weights[0] != weights[1]:
        found.append("weights")
    lines = [[json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (run, other)]
    for key in ("loss", "heldout"):
        if len({repr([(line["step"], line[key]) for line in part if key in line]) for part in lines}) > 1:
            found.append(key)
    return found


def soak(minutes: float, seed: int, folder: Path, steps: int, more: list[str]) -> dict[str, Any]:
    """Run it; returns the content of soak.json. UserError if the uninterrupted run fails."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    (folder / "runs").mkdir(parents=True)
    whole, killed = folder / "runs" / "whole", folder / "runs" / "killed"
    words = ["experiment=demo", f"workdir={folder}", "log_every=1", "checkpoint_every=10", *more, f"budget.steps={steps}"]
    begun, draw = time.time(), random.Random(seed)
    lives = [live([*words, f"hydra.run.dir={whole}"], whole, None)]
    if lives[0].code:
        said = (folder / "runs" / "whole.log").read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise UserError(
            f"the run without kills ended with code {lives[0].code} ({' '.join(said)}). See {folder / 'runs/whole.log'}."
        )
    kills, ends, different = 0, 0, []
    while True:
        over = time.time() - begun > 60 * minutes
        after = None if over else draw.uniform(0.1, 1.0) * lives[0].seconds
        life = live([*words, f"hydra.run.dir={killed}"], killed, after)
        lives.append(life)
        kills += life.code == -9
        print(f"soak: {(time.time() - begun) / 60:.1f} min, {kills} kills, {ends} ends", file=sys.stderr, flush=True)
        if life.code == 0:
            ends, different = ends + 1, different + differences(whole, killed)
            if over or different:
                break
            shutil.rmtree(killed)
        elif life.code != -9:
            different.append(f"code {life.code}, see {folder / 'runs/killed.log'}")
            break
    spent = (time.time() - begun) / 60
    return {"minutes": spent, "kills": kills, "ends": ends, "different": different, "slopes": slopes(lives)}


def read_words(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """(values of OWN, the words for train.py); UserError for a value that is no number."""
    values, more = dict(OWN), []
    for word in arguments:
        key, _, value = word.partition("=")
        if key not in OWN:
            more.append(word)
            continue
        try:
            values[key] = type(OWN[key])(value)
        except ValueError:
            raise UserError(f"{word}: expected a number.") from None
    if values["minutes"] <= 0 or values["steps"] <= 0:
        raise UserError("minutes and steps: expected more than 0.")
    return values, more


@command
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & {*words}:
        print(__doc__)
        return 0
    own, more = read_words(words)
    if not Path("/proc/self/status").exists():
        raise UserError("training.soak reads /proc, which only Linux has.")
    folder = Path(own["folder"]).absolute()
    found = soak(own["minutes"], own["seed"], folder, own["steps"], more)
    write_json(folder / "soak.json", found)
    print(f"{found['minutes']:.1f} minutes, {found['kills']} kills, {found['ends']} ends compared: ", end="")
    print("all equal to the bit" if not found["different"] else f"DIFFERENT: {', '.join(found['different'])}")
    for name, slope in found["slopes"].items():
        shown = ["-" if slope[key] is None else f"{slope[key]:,.2f}" for key in ("mean", "low", "high")]
        print(f"  {name:<8} {shown[0]:>10} {slope['unit']} ({shown[1]} to {shown[2]}, {slope['processes']} processes)")
    print(folder / "soak.json")
    return 1 if found["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
