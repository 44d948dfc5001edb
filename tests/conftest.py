"""Fixtures and helpers of several rooms: the real data's folder, running a script, a prepared tiny experiment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.settings import typed
from tasks.load import Task, load_task
from tasks.settings import TaskSettings
from tests.warm import AT_START, Warm

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def az_data() -> Path:
    """Folder of the real Azerbaijani data; tests that need it are skipped without it."""
    folder = Path(os.environ.get("AZ_DATA", ROOT.parent / "shared" / "az"))
    if not (folder / "corpus").is_dir():
        pytest.skip("the real Azerbaijani set (26 MB, 12 sources, not distributed) is not here; set AZ_DATA")
    return folder


def read_task(values: dict) -> Task:
    """The task with these keys of conf/task, read from its files."""
    return load_task(typed(TaskSettings, values, "task"))


PLAIN = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
WARM = Warm(os.environ | PLAIN)


def run_script(*words: object, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess:
    """Run one of the scripts (or -m module) as a user would; never raises on a non-zero exit code."""
    env = os.environ | PLAIN | environment
    if (
        not any(name.startswith(AT_START) for name in environment if name != "PYTHONPATH")
        and "torch.distributed.run" not in words
    ):
        return WARM.run([*map(str, words)], env, str(ROOT), timeout)
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout, env=env
    )


TINY = [
    "tokenizer.vocab_size=1500",
    "model.hidden_size=32",
    "model.layers=2",
    "model.heads=2",
    "model.intermediate_size=48",
    "batch_tokens=1024",
    "micro_batch_tokens=512",
    "phases=[{max_length: 64, until: 1.0}]",
    "device=cpu",
    "precision=fp32",
    "threads=1",
    "log_every=1",
    "evaluation.every=null",
    "evaluation.max_tokens=2000",
    "budget.steps=20",
]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A folder with corpus, tokenizer and shards of the demo text, made once a session."""
    folder = tmp_path_factory.mktemp("prepared")
    result = run_script("prepare.py", f"workdir={folder}", *TINY)
    assert result.returncode == 0, result.stderr
    return folder


def with_hooks(code: str) -> str:
    """A driver for `python -c` that runs train.py with hooks: `code` defines on_model(model) or on_step(run), or both."""
    begin = "import functools, sys\nfrom common.launch import launch\nfrom train import Pretraining, train\n"
    begin += "on_model = on_step = None"
    end = "launch(functools.partial(train, on_model=on_model, on_step=on_step), 'train', Pretraining)"
    return f"{begin}\n{code}\nsys.argv = sys.argv[1:]\n{end}\n"


def training_words(prepared: Path, run: Path, *more: str) -> list[str]:
    """The command line of a tiny pre-training run into `run` on the prepared folder."""
    return ["train.py", f"workdir={prepared}", f"hydra.run.dir={run}", *TINY, *more]
