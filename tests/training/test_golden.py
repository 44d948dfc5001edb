"""A golden loss curve: 20 steps on the demo text, so that no change moves the numbers unseen.

    python -m tests.training.test_golden       writes golden_loss.json anew, after a change that is meant to move them

fp32, one thread, seed 0, no dropout. The text is the demo's as it lies in data/demo, its pieces are single characters:
nothing here depends on how cleaning or a trained tokenizer turn out. Other processors' kernels stay within 1e-4.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from common.files import read_json, read_jsonl, sha256_file, write_json, write_jsonl
from data.shards import DOCUMENT
from tests.conftest import ROOT, TINY, run_script
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer, wordpiece_engine

GOLDEN = Path(__file__).with_name("golden_loss.json")
# train.py on shards that are there already: the stages before it do nothing.
DRIVER = "import prepare, runpy, sys; prepare.prepare = lambda settings: None; sys.argv = sys.argv[1:]\n" \
         "runpy.run_path(sys.argv[0], run_name='__main__')\n"  # fmt: skip


def character_shards(folder: Path) -> None:
    """Tokenizer, shards and held-out text of the demo, a piece a character."""
    names = sorted(path.stem for path in (ROOT / "data" / "demo" / "corpus").glob("*.jsonl"))
    texts = {name: [r["text"] for _, r in read_jsonl(ROOT / "data" / "demo" / "corpus" / f"{name}.jsonl")] for name in names}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = list("abcçdeəfgğhxıijkqlmnoöprsştuüvyz0123456789.,!?:;-()«»")
    pieces = special + letters + [f"##{letter}" for letter in letters]
    tokenizer = Tokenizer("wordpiece", wordpiece_engine(pieces, lowercase=True), {"do_lower_case": True, "normaliser": {}})
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
    write_json(shards / "index.json", {"tokenizer": tokenizer.identity, "dtype": "<u2", "tokens": int(lengths.sum()),
                                       "sources": names, "weights": [1.0] * len(names), "files": files})  # fmt: skip
    write_jsonl(folder / "heldout.jsonl.gz", [{"source": name, "text": texts[name][0]} for name in names])


def curve(folder: Path) -> dict[str, list[float] | float]:
    """Loss and gradient norm of each of the 20 steps, and the held-out loss at the end."""
    character_shards(folder)
    words = ["train.py", f"workdir={folder}", f"hydra.run.dir={folder / 'run'}", f"heldout_file={folder / 'heldout.jsonl.gz'}",
             *TINY, "model.dropout=0.0", "optimizer.lr=5e-3", "seed=0"]  # fmt: skip
    result = run_script("-c", DRIVER, *words, PYTHONPATH=str(ROOT))
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").open()]
    return {
        "loss": [line["loss"] for line in lines if "loss" in line],
        "gradient_norm": [line["gradient_norm"] for line in lines if "loss" in line],
        "heldout_loss": read_json(folder / "run" / "summary.json")["heldout"]["loss"],
    }


def test_twenty_steps_as_ever(tmp_path):
    golden, ours = read_json(GOLDEN), curve(tmp_path)
    assert len(golden["loss"]) == 20 and golden["loss"][-1] < golden["loss"][0] - 0.7
    assert ours["loss"] == pytest.approx(golden["loss"], rel=1e-4)
    assert ours["gradient_norm"] == pytest.approx(golden["gradient_norm"], rel=1e-3)
    assert ours["heldout_loss"] == pytest.approx(golden["heldout_loss"], rel=1e-4)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        write_json(GOLDEN, curve(Path(place)))
    print(f"written: {GOLDEN}", file=sys.stderr)
