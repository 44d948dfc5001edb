"""A golden loss curve: 20 steps on the demo text, so that no change of the numbers goes unnoticed.

        python -m tests.training.test_golden       rewrites golden_loss.json, after an intended change

fp32, one thread, seed 0, no dropout. The text is data/demo, its tokens are single characters: the result does not depend
on cleaning or on a trained tokenizer. Other processors' kernels stay within 1e-4.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.files import read_json, read_jsonl, sha256_file, write_json, write_jsonl
from data.shards import DOCUMENT
from language.azerbaijani import LANGUAGE as AZ
from tests.conftest import ROOT, TINY, run_script
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer, wordpiece_engine

OURS = {"do_lower_case": True, "normaliser": {"language": "azerbaijani"}, "kind": "wordpiece"}

GOLDEN = Path(__file__).with_name("golden_loss.json")
# train.py on existing shards: the earlier stages do nothing.
DRIVER = (
    "import prepare, runpy, sys; prepare.prepare = lambda settings: None; sys.argv = sys.argv[1:]\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')\n"
)


def character_shards(folder: Path) -> None:
    """Tokenizer, shards and held-out text of the demo, one token per character."""
    names = sorted(path.stem for path in (ROOT / "data" / "demo" / "corpus").glob("*.jsonl"))
    texts = {name: [r["text"] for _, r in read_jsonl(ROOT / "data" / "demo" / "corpus" / f"{name}.jsonl")] for name in names}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = list("abcçdeəfgğhxıijkqlmnoöprsştuüvyz0123456789.,!?:;-()«»")
    tokens = special + letters + [f"##{letter}" for letter in letters]
    tokenizer = Tokenizer("wordpiece", wordpiece_engine(tokens, AZ, lowercase=True), OURS)
    tokenizer.save(folder / "tokenizer")
    tokenizer = load_tokenizer(folder / "tokenizer")
    ids = [(number, part) for number, name in enumerate(names) for part in tokenizer.encode_batch(texts[name])]
    lengths = np.array([len(part) for _, part in ids])
    table = np.zeros(len(ids), DOCUMENT)
    table["length"], table["start"], table["source"] = lengths, np.cumsum(lengths) - lengths, [number for number, _ in ids]
    shards = folder / "shards"
    shards.mkdir()
    np.concatenate([part for _, part in ids]).astype("<u2").tofile(shards / "tokens.bin")
    np.save(shards / "documents.npy", table)
    files = {name: sha256_file(shards / name) for name in ("tokens.bin", "documents.npy")}
    write_json(
        shards / "index.json",
        {
            "tokenizer": tokenizer.identity,
            "dtype": "<u2",
            "tokens": int(lengths.sum()),
            "sources": names,
            "weights": [1.0] * len(names),
            "files": files,
        },
    )
    write_json(folder / "corpus" / "manifest.json", {"documents": "the demo's text"})  # what a run says that it is made of
    write_jsonl(folder / "heldout.jsonl.gz", [{"source": name, "text": texts[name][0]} for name in names])


def curve(folder: Path) -> dict[str, Any]:
    """Loss, gradient norm and sizes by group of each of the 20 steps, and the held-out loss at the end."""
    character_shards(folder)
    words = [
        "train.py",
        f"workdir={folder}",
        f"hydra.run.dir={folder / 'run'}",
        f"heldout_file={folder / 'heldout.jsonl.gz'}",
        *TINY,
        "model.dropout=0.0",
        "optimizer.lr=5e-3",
        "seed=0",
    ]
    result = run_script("-c", DRIVER, *words, PYTHONPATH=str(ROOT))
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").open()]
    return {
        "loss": [line["loss"] for line in lines if "loss" in line],
        "gradient_norm": [line["gradient_norm"] for line in lines if "loss" in line],
        "weights": [line["sizes"]["weights"] for line in lines if "loss" in line],
        "updates": [line["sizes"]["update"] for line in lines if "loss" in line],
        "heldout_loss": read_json(folder / "run" / "summary.json")["heldout"]["loss"],
    }


def test_twenty_steps_are_unchanged(tmp_path):
    golden, ours = read_json(GOLDEN), curve(tmp_path)
    assert len(golden["loss"]) == 20 and golden["loss"][-1] < golden["loss"][0] - 0.7
    assert ours["loss"] == pytest.approx(golden["loss"], rel=1e-4)
    assert ours["gradient_norm"] == pytest.approx(golden["gradient_norm"], rel=1e-3)
    assert ours["heldout_loss"] == pytest.approx(golden["heldout_loss"], rel=1e-4)
    for name in ("weights", "updates"):
        for now, before in zip(ours[name], golden[name], strict=True):
            assert now == pytest.approx(before, rel=1e-3)


def test_weights_keep_their_size():
    """Adam at 5e-3 moves each weight by at most that per step; blocks may not grow more than 20 such steps allow."""
    golden = read_json(GOLDEN)
    first, last = golden["weights"][0], golden["weights"][-1]
    for group in ("embeddings", "attention", "mlp", "head"):
        assert 0.019 < first[group] < 0.022 and first[group] < last[group] < 0.04, group
        assert all(0 < step[group] <= 5.5e-3 for step in golden["updates"][1:]), group  # the first step has a rate of 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        write_json(GOLDEN, curve(Path(place)))
    print(f"written: {GOLDEN}", file=sys.stderr)
