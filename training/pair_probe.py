"""Minimal pairs as a probe while a model is pre-trained: evaluation.pairs.

    python train.py evaluation.pairs=suite evaluation.pairs_every=200
    python train.py "evaluation.pairs=FILES/*.csv" evaluation.pairs_each=null

At given steps, and at the end, the model's preferences on the suite of the corpus' language (or any file of pairs) are a line
in metrics.jsonl, in summary.json, and in W&B, scored as training.minimal_pairs does: the run itself stays as it is to the bit,
and its clock is paused. Warstadt et al. 2020 (arXiv 2007.06778) follow what a model learns in which order in this way.
"""

import hashlib
import time
from collections import defaultdict
from typing import Any

from common.errors import UserError
from model.mlm import MaskedLM
from tokenization.tokenizer import Tokenizer
from training.minimal_pairs import files_named, judged, log_likelihoods, read_pairs, suite_of, summary_of, words_of
from training.optimizers import average_weights
from training.pretraining import Run
from training.settings import Evaluation

SUITE = "suite"  # evaluation.pairs: that of the language


def prepare_pairs(evaluation: Evaluation, language: str | None, tokenizer: Tokenizer, max_length: int) -> list[dict[str, str]]:
    """The pairs that are scored, evaluation.pairs_each of each phenomenon, the same ones at each step; [] without any.

    Raises UserError, before the first step, for a language without a suite, a missing file, a file without pairs, and a
    sentence that the model cannot read.
    """
    if not evaluation.pairs:
        return []
    key = "evaluation.pairs"
    files = [suite_of(language, key)] if evaluation.pairs == SUITE else files_named(evaluation.pairs, key)
    pairs, _ = read_pairs(files)
    by: dict[str, list[dict[str, str]]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda pair: hashlib.sha256(f"{pair['good']}\0{pair['bad']}".encode()).digest()):
        by[pair["phenomenon"]].append(pair)
    chosen = [pair for name in sorted(by) for pair in by[name][: evaluation.pairs_each]]
    for text in (pair[side] for pair in chosen for side in ("good", "bad")):
        if (size := len(words_of(tokenizer, text)[0]) + 2) > max_length:
            raise UserError(f"{key}: {text[:80]!r} has {size} tokens, the model reads {max_length} at most. Leave it out.")
    return chosen


def score_pairs(pairs: list[dict[str, str]], model: MaskedLM, tokenizer: Tokenizer, batch_tokens: int) -> dict[str, Any]:
    """{accuracy, low, high, matched, mean_of_phenomena, phenomena: {name: accuracy}} of the model in its present state.

    accuracy with its 95 % interval over phenomena; matched: that of pairs of equal length. Dropout is off for it.
    """
    texts = [pair[side] for side in ("good", "bad") for pair in pairs]
    training = model.training
    model.eval()
    found = summary_of(judged(pairs, *log_likelihoods(model, tokenizer, texts, batch_tokens)))
    model.train(training)
    whole = found["all"]["whole"]
    return {
        **{name: whole[name] for name in ("accuracy", "low", "high")},
        "matched": found["all"]["matched"]["accuracy"],
        "mean_of_phenomena": found["mean_of_phenomena"],
        "phenomena": {name: part["whole"]["accuracy"] for name, part in found["phenomena"].items()},
        "pairs": len(pairs),
    }


def probe_run(run: Run, at_end: bool = False) -> None:
    """A line with the scores of evaluation.pairs if they are due: every evaluation.pairs_every steps, and at the end unless
    they were just made. With the averaged weights if there are any; the run's clock is paused."""
    state, ranks, begun, every = run.state, run.ranks, time.time(), run.settings.evaluation.pairs_every
    due = bool(every) and state.step % every == 0
    if run.settings.evaluation.pairs and due != at_end:
        with run.clock.paused(), average_weights(run.raw, run.average):
            if ranks.first:
                tokens = run.settings.micro_batch_tokens
                run.pair_scores = score_pairs(run.pairs, run.raw, run.tokenizer, tokens)
                run.tracker.log({"step": state.step, "tokens": state.tokens, "pairs": run.pair_scores})
            ranks.wait()
        run.mark += time.time() - begun  # so that it does not count in tokens per second
