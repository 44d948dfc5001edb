"""What several rooms' tests share: where the real data is, how a script is run, a prepared tiny experiment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def az_data() -> Path:
    """Folder of the real Azerbaijani set; tests that need it skip where it is not."""
    folder = Path(os.environ.get("AZ_DATA", ROOT.parent / "shared" / "az"))
    if not (folder / "corpus").is_dir():
        pytest.skip("the real Azerbaijani set (26 MB, 12 sources, not distributed) is not here; set AZ_DATA")
    return folder


def run_script(*words: object, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess:
    """Run one of the scripts (or -m module) as a user would; never raises on its exit code."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout, env=env
    )


TINY = ["tokenizer.vocab_size=1500", "model.hidden_size=32", "model.layers=2", "model.heads=2", "model.intermediate_size=48",
        "batch_tokens=1024", "micro_batch_tokens=512", "phases=[{max_length: 64, until: 1.0}]", "device=cpu", "precision=fp32",
        "threads=1", "log_every=1", "evaluation.every=null", "evaluation.max_tokens=2000", "budget.steps=20"]  # fmt: skip


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A folder with corpus, tokenizer and shards of the demo text, made once."""
    folder = tmp_path_factory.mktemp("prepared")
    result = run_script("prepare.py", f"workdir={folder}", *TINY)
    assert result.returncode == 0, result.stderr
    return folder


def training_words(prepared: Path, run: Path, *more: str) -> list[str]:
    """Words of a tiny pre-training run into `run` on the prepared folder."""
    return ["train.py", f"workdir={prepared}", f"hydra.run.dir={run}", *TINY, *more]
