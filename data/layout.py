"""Where the documents lie in a flat batch of tokens, and how to lay them out in rows where no kernel reads them flat.

A batch is one line of T tokens, document after document, and no padding: every layer but attention works on [T, H].
`Layout` says where each document begins. For attention through `scaled_dot_product_attention` (any device), the tokens
are gathered into rows and back; the plan of that is made once a batch and used by every layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

# Row lengths for the padded route: a document is padded to the next of these. Steps of about a third keep the waste of
# attention (never of anything else) under a third, and the number of calls a layer under a dozen at length 512.
BUCKETS = np.array([8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192])


@dataclass
class Rows:
    """A rectangle of attention: which token stands where.

    index [R, C] token of each cell (padding repeats token 0); document [R, C] number of the document, -1 padding;
    position [R, C] place inside the document.
    """

    index: torch.Tensor
    document: torch.Tensor
    position: torch.Tensor


@dataclass
class Layout:
    """Documents in a flat batch.

    lengths: tokens of each document (host). starts [n + 1] int32: first token of each, and T. position [T]: place of
    each token inside its document. `plans` holds the row plans, made when first asked for.
    """

    lengths: np.ndarray
    starts: torch.Tensor
    position: torch.Tensor
    plans: dict[str, tuple[list[Rows], torch.Tensor]] = field(default_factory=dict)
    masks: dict[tuple, torch.Tensor | None] = field(default_factory=dict)  # attention masks, shared by all layers
    asked: Layout | None = None  # of the positions that the head will be asked for, where they are known beforehand

    @classmethod
    def of(cls, lengths: np.ndarray | list[int], device: torch.device | str = "cpu") -> Layout:
        """Layout of documents with these token counts (each at least 1), in this order."""
        lengths = np.asarray(lengths, dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        position = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        return cls(lengths, torch.from_numpy(starts.astype(np.int32)).to(device), torch.from_numpy(position).to(device))

    def __post_init__(self) -> None:
        self.total = int(self.lengths.sum())  # tokens T
        self.longest = int(self.lengths.max()) if len(self.lengths) else 0  # tokens of the longest document

    def ask(self, positions: torch.Tensor) -> None:
        """Make the layout of these positions now, on the host, so that no step has to fetch them from the device."""
        self.asked = self.keep(positions)

    def to(self, device: torch.device) -> Layout:
        """This layout on `device`; the copy does not wait where the memory is pinned. Plans stay where they were made."""
        if device == self.starts.device:
            return self
        starts, position = (part.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else part.to(device)
                            for part in (self.starts, self.position))  # fmt: skip
        return Layout(self.lengths, starts, position, asked=self.asked.to(device) if self.asked else None)

    def queries(self, positions: torch.Tensor) -> Layout:
        """Layout of the batch's own positions: what `ask` made, or made now."""
        return self.asked if self.asked is not None and self.asked.total == len(positions) else self.keep(positions)

    @torch.compiler.disable  # plans are made on the host
    def keep(self, positions: torch.Tensor) -> Layout:
        """Layout of the tokens at `positions` (sorted, flat), which stay with their documents; some end up empty."""
        ends = torch.searchsorted(positions.cpu(), self.starts.cpu().long())
        lengths = torch.diff(ends).numpy()
        return Layout(lengths, ends.to(torch.int32).to(self.starts.device), self.position[positions])

    @torch.compiler.disable  # plans are made on the host
    def rounded(self, multiple: int) -> Layout:
        """This layout with one more document, of nobody's tokens, that makes the total a multiple; itself if it is one."""
        rest = -self.total % multiple
        if not rest:
            return self
        return Layout.of(np.append(self.lengths, rest), self.starts.device)

    @torch.compiler.disable  # plans are made on the host
    def rows(self, route: str) -> tuple[list[Rows], torch.Tensor]:
        """Rectangles for `route` and the cell (counted through all of them) in which each token stands [T].

        "padded": one rectangle a bucket, one document a row. "packed": one rectangle, documents side by side in rows as
        long as the longest document.
        """
        if route not in self.plans:
            groups = _bucketed(self.lengths) if route == "padded" else [_packed(self.lengths)]
            self.plans[route] = self._plan(groups)
        return self.plans[route]

    def _plan(self, groups: list[tuple[np.ndarray, np.ndarray, np.ndarray, int, int]]) -> tuple[list[Rows], torch.Tensor]:
        """Turn (documents, row of each, first column of each, rows, columns) into index rectangles."""
        device = self.starts.device
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        cell_of_token = np.zeros(starts[-1], dtype=np.int64)
        rectangles, cells = [], 0
        for documents, row, column, n_rows, n_columns in groups:
            lengths = self.lengths[documents]
            inside = np.arange(lengths.sum()) - np.repeat(np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
            token = np.repeat(starts[documents], lengths) + inside
            cell = np.repeat(row * n_columns + column, lengths) + inside
            index = np.zeros(n_rows * n_columns, dtype=np.int64)
            number = np.full(n_rows * n_columns, -1, dtype=np.int64)
            place = np.zeros(n_rows * n_columns, dtype=np.int64)
            index[cell], number[cell], place[cell] = token, np.repeat(documents, lengths), inside
            cell_of_token[token] = cells + cell
            cells += n_rows * n_columns
            shape = (n_rows, n_columns)
            rectangles.append(Rows(*(torch.from_numpy(part).view(shape).to(device) for part in (index, number, place))))
        return rectangles, torch.from_numpy(cell_of_token).to(device)


def _bucketed(lengths: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, int, int]]:
    bounds = BUCKETS if lengths.max() <= BUCKETS[-1] else np.append(BUCKETS, lengths.max())
    bucket = np.searchsorted(bounds, lengths)
    groups = []
    for number in np.unique(bucket[lengths > 0]):
        documents = np.flatnonzero((bucket == number) & (lengths > 0))
        columns = int(bounds[number])  # not the longest there: a kernel is compiled for every shape it meets
        groups.append((documents, np.arange(len(documents)), np.zeros(len(documents), np.int64), len(documents), columns))
    return groups


def _packed(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """First fit by falling length into rows as long as the longest document."""
    columns = int(lengths.max())
    order = np.argsort(-lengths, kind="stable")
    filled: list[int] = []
    row, column = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    for document in order:
        length = int(lengths[document])
        place = next((r for r, used in enumerate(filled) if used + length <= columns), len(filled))
        if place == len(filled):
            filled.append(0)
        row[document], column[document] = place, filled[place]
        filled[place] += length
    return np.arange(len(lengths)), row, column, len(filled), columns
