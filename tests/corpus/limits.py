"""Runs a reader in its own process with limited memory and returns what it prints, line by line."""

import subprocess
import sys
import textwrap

from common.files import ROOT

_LIMITED = """
import resource
from pathlib import Path
{imports}
with open("/proc/self/statm") as file:
    limit = int(file.read().split()[0]) * resource.getpagesize() + {more}
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""


def within(more: int, code: str, imports: str = "import corpus.reading.sources") -> list[str]:
    """Lines that `code` prints with at most `more` bytes of address space beyond what a process has after its imports."""
    whole = _LIMITED.format(more=more, imports=imports) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", whole], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()
