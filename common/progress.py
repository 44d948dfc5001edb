"""Progress of long steps: a bar on a terminal; elsewhere, for example in a scheduler's log, a line a minute."""

import sys
from typing import Any

from tqdm import tqdm

LINE = 60  # seconds between two lines where no terminal shows the bar; what takes less prints none


class _Lines:
    """Standard errors for tqdm: each state of the bar becomes a line of its own."""

    encoding = "utf-8"

    def write(self, text: str) -> None:
        """Print what tqdm would draw over its last state."""
        if said := text.strip():
            print(said, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Nothing is held back."""


def progress(items: Any = None, **options: Any) -> tqdm:
    """tqdm(items, **options), which on a terminal is a bar; elsewhere it prints a line every LINE seconds at most."""
    if options.get("disable") or sys.stderr.isatty():
        return tqdm(items, **options)
    options["unit"] = f" {options.get('unit', '').strip()}".rstrip()
    plain = {"mininterval": LINE, "maxinterval": LINE, "delay": LINE, "miniters": 1}
    return tqdm(items, file=_Lines(), bar_format="{desc}: {n_fmt} of {total_fmt}{unit}, {elapsed}{postfix}", **plain, **options)
