"""Shared by the speed benchmarks: measurements in separate processes, run in turn, and their tables."""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from common.errors import UserError
from common.files import write_json, write_text
from common.launch import ROOT, git_state
from model.encoder import EncoderConfig

MARK = "measured: "  # begins the line of a child's output that holds its result


def machine(threads: int | None = None) -> dict[str, Any]:
    """The machine that a speed belongs to. `load` is the mean number of busy processes during the last minute."""
    name = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": threads,
        "gpu": gpu,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "load": round(os.getloadavg()[0], 2),
        "commit": git_state()["commit"],
    }


def machine_line(found: dict[str, Any]) -> str:
    """The machine in one line."""
    gpu = f", {found['gpu']}" if found["gpu"] else ", no GPU"
    return (
        f"{found['cpu']}, {found['cores']} cores, {found['threads']} threads{gpu}; torch {found['torch']}, "
        f"Python {found['python']}; load {found['load']} at the start"
    )


def environment(threads: int) -> dict[str, str]:
    """Environment of a child process: number of threads, which spin briefly while they wait, as in the Makefile."""
    return os.environ | {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "20000", "TOKENIZERS_PARALLELISM": "false"}


def in_child(module: str, work: dict[str, Any], threads: int, ranks: int = 1) -> dict[str, Any]:
    """Run `module` on `work` in a process (or `ranks` of them); returns its answer. UserError with its output on failure."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    result = subprocess.run(
        [sys.executable, *several, "-m", module, json.dumps(work | {"threads": threads})],
        cwd=ROOT,
        env=environment(threads),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith(MARK)]
    if result.returncode or not lines:
        last = "\n".join((result.stderr or result.stdout).strip().splitlines()[-12:])
        raise UserError(f"{module} {work.get('way', '')} ended with {result.returncode}: {last}")
    return json.loads(lines[-1].removeprefix(MARK))


def child(run: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """The child's side of `in_child`: read the work from the command line, print the answer (None: another rank does)."""
    work = json.loads(sys.argv[1])
    torch.set_num_threads(work["threads"])
    try:
        found = run(work)
    except UserError as error:
        sys.exit(f"error: {error}")
    if found is not None:
        print(MARK + json.dumps(found), flush=True)


def in_turn(module: str, works: dict[str, dict[str, Any]], repeats: int, threads: int) -> dict[str, list[dict[str, Any]]]:
    """Run every variant once, `repeats` times over, so that a slow phase affects all of them alike."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in works}
    bar = tqdm(total=repeats * len(works), desc="measuring", unit=" runs", disable=None)
    for _ in range(repeats):
        for name, work in works.items():
            bar.set_postfix_str(name)
            found[name].append(in_child(module, work, threads))
            bar.update()
    bar.close()
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Median and range of ours / theirs, run by run."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def shown(values: dict[str, float], form: str = ",.0f") -> str:
    """A median with its range."""
    return f"{values['median']:{form}} ({values['least']:{form}}-{values['most']:{form}})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns padded so that it reads as plain text too."""
    widths = [max(len(row[number]) for row in [head, *rows]) for number in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)) + " |" for line in lines)


def report(title: str, table: str, notes: list[str], result: dict[str, Any], out: str | None) -> None:
    """Print the table with its machine and notes; with `out`, a folder, also write <title>.md and <title>.json there."""
    text = "\n\n".join([f"# {title}", machine_line(result["machine"]), table, *notes])
    print(text)
    if out:
        name = title.replace(" ", "-").replace(",", "")
        write_text(Path(out) / f"{name}.md", text + "\n")
        write_json(Path(out) / f"{name}.json", result)


def conf_name(name: str) -> str:
    """The file in conf/model that `name` means: itself or bert_NAME (small: bert_small)."""
    known = sorted(file.stem for file in (ROOT / "conf" / "model").glob("*.yaml"))
    found = next((full for full in (name, f"bert_{name}") if full in known), None)
    if found is None:
        raise UserError(f"--model {name}: no such file in conf/model. There are: {', '.join(known)}.")
    return found


def model_shape(name: str, **changes: Any) -> dict[str, Any]:
    """The model config in that file with every change that is not None."""
    values = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "model" / f"{conf_name(name)}.yaml"))
    return EncoderConfig.from_dict(values | {k: v for k, v in changes.items() if v is not None}).to_dict()


def _text(folder: Path) -> Path:
    """The text for a prepared folder: the real set if AZ_DATA names it, otherwise the demo's."""
    real = Path(os.environ.get("AZ_DATA", ROOT.parent / "shared" / "az")) / "corpus"
    return ROOT / "data" / "demo" / "corpus" if folder.name.startswith("benchmark-demo") or not real.is_dir() else real


def prepared(data: str | None, vocab: int) -> Path:
    """A folder with corpus, tokenizer and shards: `data`, or runs/benchmark-..., which the first call makes."""
    if data:
        return Path(data).absolute()
    kind = "demo" if _text(Path()).parent.name == "demo" else "real"
    folder = ROOT / "runs" / f"benchmark-{kind}-{vocab}"
    words = [
        "prepare.py",
        "experiment=local",
        f"corpus.path={_text(folder)}",
        f"workdir={folder}",
        f"tokenizer.vocab_size={vocab}",
    ]
    result = subprocess.run([sys.executable, *words], cwd=ROOT, text=True, capture_output=True, check=False)
    if result.returncode:
        raise UserError(f"prepare.py failed: {result.stderr.strip() or result.stdout.strip()}")
    return folder


def train_words(data: Path, options: argparse.Namespace) -> list[str]:
    """Command line of a train.py run (experiment=local) on a prepared folder; the caller appends what differs.

    In a folder that `prepared` made, train.py checks the earlier stages itself. In a folder of the user's the stages were made
    with an unknown config and are left alone.
    """
    ours = data.parent == ROOT / "runs" and data.name.startswith("benchmark-")
    driver = [
        "-c",
        "import prepare, runpy, sys; prepare.prepare = lambda settings: None; sys.argv = sys.argv[1:]; "
        "sys.path.insert(0, '.'); runpy.run_path(sys.argv[0], run_name='__main__')",
    ]
    return [
        *([] if ours else driver),
        "train.py",
        "experiment=local",
        f"corpus.path={_text(data)}",
        f"workdir={data}",
        f"tokenizer.vocab_size={options.vocab}",
        f"device={options.device}",
        f"threads={options.threads}",
        f"compile={str(options.compile).lower()}",
    ]
