"""A hashed bag of n-grams beside the encoder: what a linear classifier over TF-IDF sees, in the same model (recipe.ngrams).

As in fastText (Joulin et al. 2016, arXiv 1607.01759) every n-gram has a row in a table of fixed size, found by its hash; here
a row holds the n-gram's share of each output directly. The n-grams are those of the tokens: runs of 3 to 5 letters inside a
token, whole tokens, and pairs of neighbours; so the model needs nothing but the ids that the encoder reads. Each counts once a
row, weighted by its idf, and a row's weights have norm 1. In a pair, n-grams of the first text, the second and both differ.
"""

import zlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from data.features import TaskBatch
from language.base import Language
from tokenization.tokenizer import Tokenizer

NGRAMS = "ngrams.idf"  # among the weights of a task model that has a bag
LENGTHS = (3, 4, 5)  # letters
PAIR, SHIFT = (1_000_003, 7_919), 0.381966  # of hashing: two neighbours, n-grams of another text


def ngrams_of(tokenizer: Tokenizer, language: Language | None, buckets: int) -> tuple[Tensor, Tensor]:
    """(buckets of all n-grams of all tokens [G], first of each token [V + 1]); special tokens have none."""
    lower = language.lower if language else str.lower
    special, found, first = set(tokenizer.special_ids), [], [0]
    for number, token in enumerate(tokenizer.tokens):
        if number not in special:
            text = lower(token.removeprefix("##").replace("▁", ""))
            text = text if tokenizer.continues[number] else f"<{text}"
            parts = {text[at : at + size] for size in LENGTHS for at in range(len(text) - size + 1)} | {f"{text} "}
            found += sorted(zlib.crc32(part.encode()) % buckets for part in parts)
        first.append(len(found))
    return torch.tensor(found, dtype=torch.int64), torch.tensor(first, dtype=torch.int64)


class NgramBag(nn.Module):
    """Outputs [rows, outputs] of a batch's n-grams, zero at first. `grams`, `first`: of `ngrams_of`; `idf` is to be set."""

    def __init__(self, buckets: int, outputs: int, grams: Tensor, first: Tensor) -> None:
        super().__init__()
        self.table = nn.Embedding(buckets, outputs)
        nn.init.zeros_(self.table.weight)
        self.register_buffer("grams", grams)
        self.register_buffer("first", first)
        self.register_buffer("idf", torch.ones(buckets))

    def find(self, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """(row of each n-gram [N], its bucket [N]), each pair once."""
        buckets, ids, lengths = self.table.num_embeddings, batch.ids, batch.layout.starts.diff().long()
        rows = torch.repeat_interleave(torch.arange(len(lengths), device=ids.device), lengths, output_size=len(ids))
        counts = self.first[ids + 1] - self.first[ids]
        ends = counts.cumsum(0)
        owner = torch.repeat_interleave(torch.arange(len(ids), device=ids.device), counts)
        inside = self.grams[self.first[ids][owner] + torch.arange(len(owner), device=ids.device) - (ends - counts)[owner]]
        left, right = slice(None, -1), slice(1, None)  # neighbours in one text, neither of them special
        beside = (rows[left] == rows[right]) & (batch.token_types[left] == batch.token_types[right])
        beside = (beside & (counts[left] > 0) & (counts[right] > 0)).nonzero().ravel()
        pairs = (ids[beside] * PAIR[0] + ids[beside + 1] * PAIR[1]) % buckets
        place, bucket = torch.cat([owner, beside]), torch.cat([inside, pairs])
        found, which = torch.unique(rows[place] * buckets + bucket, return_inverse=True)
        second = batch.token_types[place].bool()
        sides = [torch.zeros(len(found), dtype=torch.bool, device=ids.device) for _ in range(2)]
        for side, there in zip(sides, (~second, second), strict=True):
            side[which[there]] = True
        state = (sides[1] & ~sides[0]).long() + 2 * (sides[1] & sides[0]).long()  # 0 in the first text alone, 1 second, 2 both
        return found // buckets, (found % buckets + state * int(SHIFT * buckets)) % buckets

    def forward(self, batch: TaskBatch) -> Tensor:
        """[rows, outputs] in fp32."""
        rows, found = self.find(batch)
        count = len(batch.layout.lengths)
        weights = self.idf[found]
        norm = weights.new_zeros(count).index_add(0, rows, weights.square()).sqrt()
        values = self.table(found) * (weights / norm[rows])[:, None]
        return values.new_zeros(count, values.shape[1]).index_add(0, rows, values)

    @torch.no_grad()
    def count(self, batches: Iterable[TaskBatch]) -> None:
        """Set idf from training rows, smoothed as in scikit-learn: ln((1 + rows) / (1 + rows with it)) + 1."""
        having, rows = np.zeros(self.table.num_embeddings), 0
        for batch in batches:
            having += np.bincount(self.find(batch)[1].cpu().numpy(), minlength=len(having))
            rows += len(batch.layout.lengths)
        self.idf.copy_(torch.from_numpy(np.log((1 + rows) / (1 + np.minimum(having, rows))) + 1))
