"""From too many WordPiece pieces to the ones that earn their place.

Merging pairs by count leaves pieces that were only steps on the way to a longer one. So more pieces are trained than
wanted, and those whose removal costs the fewest extra pieces on the training words go, a part at a time, as Unigram
training does with its likelihood.
"""

import numpy as np
import tokenizers
from tokenizers import models
from tqdm import tqdm

CUT = 0.85  # share of the pieces kept in one round: their uses change when neighbours go
MOST_JUDGED = 1_000_000  # words that the uses are counted on, the most frequent ones
GROUP = 50_000  # words segmented at a time


def _uses(pieces: list[str], words: list[str], counts: np.ndarray) -> np.ndarray:
    """[pieces] how often each is used when `words` are split longest piece first, weighted by counts [words]."""
    model = models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]", max_input_chars_per_word=100)
    engine = tokenizers.Tokenizer(model)
    uses = np.zeros(len(pieces))
    for begin in range(0, len(words), GROUP):
        encoded = [item.ids for item in engine.encode_batch_fast(words[begin : begin + GROUP], add_special_tokens=False)]
        lengths = [len(ids) for ids in encoded]
        flat = np.concatenate([np.array(ids, dtype=np.int64) for ids in encoded])
        uses += np.bincount(flat, np.repeat(counts[begin : begin + GROUP], lengths), minlength=len(pieces))
    return uses


def _parts_without(piece: str, pieces: set[str]) -> int:
    """Number of other pieces that spell `piece`, longest first; a thousand if they cannot."""
    prefix, body = ("##", piece[2:]) if piece.startswith("##") else ("", piece)
    number = begin = 0
    while begin < len(body):
        for end in range(len(body), begin, -1):
            part = prefix + body[begin:end]
            if part != piece and part in pieces:
                break
        else:
            return 1000
        number, begin, prefix = number + 1, end, "##"
    return number


def prune_pieces(pieces: list[str], words: dict[str, int], size: int, keep: set[str]) -> list[str]:
    """The `size` pieces of `pieces`, in their order, that spell `words` (word to count) in few pieces.

    `keep` are never removed: special pieces and the alphabet. Equal pieces go in the order of their ids, last first.
    """
    judged = list(words)[:MOST_JUDGED]
    counts = np.array([words[word] for word in judged], dtype=np.float64)
    bar = tqdm(total=len(pieces) - size, desc="tokenizer: pruning", unit=" pieces", disable=None)
    while len(pieces) > size:
        uses, present = _uses(pieces, judged, counts), set(pieces)
        cost = np.array([np.inf if piece in keep else used * (_parts_without(piece, present) - 1)
                         for piece, used in zip(pieces, uses, strict=True)])  # fmt: skip
        target = max(size, int(len(pieces) * CUT))
        order = np.lexsort((np.arange(len(pieces)), -cost))
        bar.update(len(pieces) - target)
        pieces = [pieces[index] for index in sorted(order[:target].tolist())]
    bar.close()
    return pieces
