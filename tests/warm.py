"""A process that has imported torch and Hydra and forks once for each command: a start costs a tenth of a second, not three.

The commands themselves run as they always do, our modules included: imported anew, in a process of their own that ends as an
interpreter ends. `tests.conftest.run_script` uses it where the environment asks for nothing that Python or torch reads when
they start.
"""

import contextlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import types
from pathlib import Path

AT_START = ("PYTHON", "OMP_", "MKL_", "KMP_", "GOMP_", "TORCH", "CUDA")  # beginnings of variables that are read once


def serve() -> None:
    """Read one request a line from stdin, fork, and answer with the child's number and then with its exit status."""
    import hydra
    import torch._dynamo
    import torch.distributed  # noqa: F401

    assert hydra
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    while line := requests.readline():
        request = json.loads(line)
        child = os.fork()
        if not child:
            requests.close()
            answers.close()
            become(request)
            return
        answers.write(f"{child}\n")
        answers.flush()
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        answers.flush()


def become(request: dict) -> None:
    """Run the request's command in this process as `python WORDS` would."""
    for name, path in ((1, request["out"]), (2, request["err"])):
        os.dup2(os.open(path, os.O_WRONLY), name)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    words = request["words"]
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*filter(None, own), *(place for place in sys.path if place and Path(place) != Path(request["cwd"]))]
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, "")
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    elif words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, request["cwd"])
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")


class Warm:
    """The process, started at the first command and ended with the tests."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment, self.process, self.lock = environment, None, threading.Lock()

    def run(self, words: list[str], environment: dict[str, str], cwd: str, timeout: float) -> subprocess.CompletedProcess:
        """What `subprocess.run([python, *words], capture_output=True, text=True)` returns; TimeoutExpired as there."""
        with self.lock, tempfile.TemporaryDirectory() as folder:
            if self.process is None or self.process.poll() is not None:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "tests.warm"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=self.environment,
                    cwd=Path(__file__).parents[1],
                )
            out, err = Path(folder, "out"), Path(folder, "err")
            out.touch()
            err.touch()
            request = {"words": words, "environment": environment, "cwd": cwd, "out": str(out), "err": str(err)}
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            child, late = int(self.process.stdout.readline()), threading.Event()

            def stop() -> None:
                late.set()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, 9)

            timer = threading.Timer(timeout, stop)
            timer.start()
            code = int(self.process.stdout.readline())
            timer.cancel()
            if late.is_set():
                raise subprocess.TimeoutExpired(words, timeout, out.read_bytes(), err.read_bytes())
            return subprocess.CompletedProcess([sys.executable, *words], code, out.read_text(), err.read_text())


if __name__ == "__main__":
    serve()
