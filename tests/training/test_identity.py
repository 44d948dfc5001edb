"""After an edit of the code, the same command never takes the old result silently and never loses it."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.code import changed_files
from common.files import read_json, write_json
from common.settings import typed
from corpus.build import documents_of, identity_of_documents
from corpus.settings import Corpus, Engine
from tests.azerbaijani import build_corpus
from tests.conftest import ROOT, TINY, training_words, with_hooks
from tests.corpus.test_build import sentences, write
from training.identity import CORPUS, DECIDING, FILE, changed_parts, note_parts

SMALL = ["budget.steps=4", "evaluation.max_tokens=200", "checkpoint_every=2"]
EDITED = "model/encoder.py"


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the checkout that the test may edit."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    listed += [path.relative_to(ROOT).as_posix() for room in ("training", "common") for path in (ROOT / room).glob("*.py")]
    for name in listed:
        if not name.startswith(("tests/", "docs/")) and (ROOT / name).is_file():
            (tmp_path / "code" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / "code" / name)
    return tmp_path / "code"


def run(checkout: Path, *words: object) -> subprocess.CompletedProcess:
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(checkout)}
    words = [sys.executable, *map(str, words)]
    return subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=False, timeout=200, env=env)


def edit(checkout: Path, name: str, old: str, new: str) -> None:
    text = (checkout / name).read_text()
    assert text.count(old) >= 1
    (checkout / name).write_text(text.replace(old, new, 1))


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in map(json.loads, (run / "metrics.jsonl").open()) if "loss" in line]


def test_an_edited_model_is_trained_beside_the_old_result(prepared, checkout, tmp_path):
    words, place = training_words(prepared, tmp_path / "run", *SMALL), tmp_path / "run"
    first = run(checkout, *words)
    assert first.returncode == 0, first.stderr
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    edit(checkout, EDITED, '"""', '"""In other words. ')  # a docstring does not count as a change
    edit(checkout, EDITED, '"gelu": F.gelu', '"gelu": torch.tanh')
    again = run(checkout, *words)
    assert again.returncode == 0, again.stderr
    made = [path for path in tmp_path.glob("run-*") if path.is_dir()]
    assert len(made) == 1 and f"complete, but made before a change in {EDITED}; this run goes to {made[0]}" in again.stdout
    assert losses(made[0]) != losses(place) and len(losses(made[0])) == 4
    assert before == {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    kept = run(checkout, *words, "reuse=any")
    assert kept.returncode == 0 and f"already complete, skipped: {place}" in kept.stdout


STOP_AT_3 = with_hooks("import signal\ndef on_step(run):\n    if run.state.step == 3:\n        run.stop.append(signal.SIGTERM)")


@pytest.mark.slow
def test_a_run_goes_on_after_an_edit_and_says_so(prepared, checkout, tmp_path):
    words, place = training_words(prepared, tmp_path / "run", *SMALL, "budget.steps=6"), tmp_path / "run"
    stopped = run(checkout, "-c", STOP_AT_3, *words)
    assert stopped.returncode == 85, stopped.stderr
    edit(checkout, "training/schedules.py", "import ", "import os as unused\nimport ")
    result = run(checkout, *words)
    assert result.returncode == 0 and "going on from step 4" in result.stdout, result.stderr
    assert f"goes on from step 4 after a change in training/schedules.py; {FILE} records this" in result.stderr
    held = read_json(place / FILE)
    assert held["changes"] == [{"step": 4, "changed": ["training/schedules.py"]}] and len(losses(place)) == 6
    assert "already complete, skipped" in run(checkout, *words).stdout


def test_the_tokenizer_and_the_shards_are_made_anew_by_other_code(prepared, checkout, tmp_path):
    shutil.copytree(prepared, tmp_path / "mine")
    words = ["prepare.py", f"workdir={tmp_path / 'mine'}", *TINY]
    assert run(checkout, *words).stdout.count("already complete, skipped") == 3
    edit(checkout, "data/shards.py", "import ", "import os as unused\nimport ")
    said = run(checkout, *words).stdout
    assert said.count("already complete, skipped") == 2 and "shards: 130 documents" in said
    edit(checkout, "tokenization/normaliser.py", "import ", "import os as unused\nimport ")
    said = run(checkout, *words).stdout
    assert said.count("already complete, skipped") == 1 and "tokenizer: wordpiece" in said and "shards: 130 documents" in said
    edit(checkout, "corpus/clean.py", "import ", "import os as unused\nimport ")
    said = run(checkout, *words).stdout
    assert "corpus: written" in said and "already complete" not in said


def test_another_text_under_the_same_settings_is_another_run(tmp_path):
    write(tmp_path / "in" / "a.jsonl", list(sentences(20, 1)))
    values = {"path": str(tmp_path / "in"), "language": "azerbaijani"}
    build_corpus(values, tmp_path / "out")
    settings = typed(Corpus, values, "corpus")
    corpus = documents_of(tmp_path / "out")
    assert corpus == identity_of_documents(settings)
    note_parts(tmp_path / "run", {"model/encoder.py": "1", CORPUS: corpus})
    assert changed_parts(tmp_path / "run", {"model/encoder.py": "1"}, settings) == []
    assert changed_parts(tmp_path / "run", {"model/encoder.py": "2"}, settings) == ["model/encoder.py"]
    write(tmp_path / "in" / "b.jsonl", list(sentences(20, 2)))
    again = replace(settings, keep_work=False)  # not part of the identity, but a process reads the text once for equal settings
    assert changed_parts(tmp_path / "run", {"model/encoder.py": "1"}, again) == [CORPUS]
    shutil.rmtree(tmp_path / "in")  # a finished run stays finished when its text has been moved away
    assert changed_parts(tmp_path / "run", {"model/encoder.py": "1"}, replace(again, engine=Engine(workers=1))) == []


def test_a_result_whose_code_is_not_known_is_not_taken(tmp_path):
    write_json(tmp_path / "summary.json", {"status": "done"})
    assert changed_parts(tmp_path, {"train.py": "1"}) == ["train.py"]


def test_every_module_that_the_loop_imports_is_counted_or_has_no_effect():
    """A new file of training/ must be added to one of the two lists."""
    no_effect = (
        "checkpoints distributed flops identity memory pair_probe planning pretraining profiling "
        "settings signals sizes task_scores tracking"
    )
    imported = set(re.findall(r"^from training\.(\w+) import", (ROOT / "train.py").read_text(), re.M))
    own = set(DECIDING.split())
    assert imported - own == set(no_effect.split()) and not own & set(no_effect.split())
    assert all((ROOT / "training" / f"{name}.py").is_file() for name in own)
    assert changed_files({"a": "1"}, {"a": "1", "b": "2"}) == ["b"]
