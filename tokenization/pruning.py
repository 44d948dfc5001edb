"""Prune a WordPiece vocabulary: keep the tokens that shorten the text most.

Merging pairs by count leaves tokens that only served to build a longer one. So more tokens are trained than wanted, and
those whose removal adds the fewest tokens to the training words are removed in rounds, as Unigram training does with its
likelihood.
"""

import numpy as np
import tokenizers
from tokenizers import models

from common.progress import progress

CUT = 0.85  # share of the tokens kept in one round: their uses change as others are removed
MOST_WORDS = 1_000_000  # number of most frequent words on which uses are counted
GROUP = 50_000  # words segmented at a time


def _uses(tokens: list[str], words: list[str], counts: np.ndarray) -> np.ndarray:
    """[tokens] how often each is used when `words` are split longest token first, weighted by counts [words]."""
    model = models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]", max_input_chars_per_word=100)
    engine = tokenizers.Tokenizer(model)
    uses = np.zeros(len(tokens))
    for begin in range(0, len(words), GROUP):
        encoded = [item.ids for item in engine.encode_batch_fast(words[begin : begin + GROUP], add_special_tokens=False)]
        lengths = [len(ids) for ids in encoded]
        flat = np.concatenate([np.array(ids, dtype=np.int64) for ids in encoded])
        uses += np.bincount(flat, np.repeat(counts[begin : begin + GROUP], lengths), minlength=len(tokens))
    return uses


def _parts_without(token: str, tokens: set[str]) -> int:
    """Number of other tokens that spell `token`, longest first; a thousand if they cannot."""
    prefix, body = ("##", token[2:]) if token.startswith("##") else ("", token)
    number = begin = 0
    while begin < len(body):
        for end in range(len(body), begin, -1):
            part = prefix + body[begin:end]
            if part != token and part in tokens:
                break
        else:
            return 1000
        number, begin, prefix = number + 1, end, "##"
    return number


def prune_tokens(tokens: list[str], words: dict[str, int], size: int, keep: set[str]) -> list[str]:
    """The `size` of `tokens`, in order, that split `words` (word to count) into the fewest tokens.

    `keep` are never removed: special tokens and the alphabet. Of equally useful tokens the one with the highest id goes first.
    """
    counted = list(words)[:MOST_WORDS]
    counts = np.array([words[word] for word in counted], dtype=np.float64)
    bar = progress(total=len(tokens) - size, desc="tokenizer: pruning", unit=" tokens")
    while len(tokens) > size:
        uses, present = _uses(tokens, counted, counts), set(tokens)
        cost = np.array(
            [
                np.inf if token in keep else used * (_parts_without(token, present) - 1)
                for token, used in zip(tokens, uses, strict=True)
            ]
        )
        target = max(size, int(len(tokens) * CUT))
        order = np.lexsort((np.arange(len(tokens)), -cost))
        bar.update(len(tokens) - target)
        tokens = [tokens[index] for index in sorted(order[:target].tolist())]
    bar.close()
    return tokens
