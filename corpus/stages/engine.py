"""Where units of work run: in this process, in several on this machine, or on a Dask cluster, with the same output bytes.

A unit function takes one JSON-able task and leaves its results in files (see corpus.stages.units), so it may be run twice,
on any machine that sees the same folders. Tasks carry `size` (the largest start first, so that no worker ends with a long
one) and `name` (for error messages).
"""

import contextlib
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from common.errors import UserError
from common.progress import progress
from corpus.settings import Engine as EngineSettings

Task = dict[str, Any]
Function = Callable[[Task], Any]
WORTH_A_PROCESS = 4 << 20  # bytes of input; below this, starting a second process costs more than it saves


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Engine:
    """Runs unit functions over tasks; open it with `with`. `work`: bytes of input, which limit the number of processes."""

    def __init__(self, settings: EngineSettings, work: int):
        self.settings = settings
        self.wanted = settings.workers or cores()
        self.workers = min(self.wanted, max(1, work // WORTH_A_PROCESS))
        self._pool: list[tuple[multiprocessing.process.BaseProcess, Connection]] = []
        self._client: Any = None
        self._cluster: Any = None

    def __enter__(self) -> "Engine":
        if self.settings.name == "dask":
            self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        for process, pipe in self._pool:
            process.terminate()
            process.join()
            pipe.close()
        self._pool = []
        for thing in (self._client, self._cluster):
            if thing is not None:
                thing.close()

    def run(self, function: Function, tasks: list[Task], title: str) -> list[Any]:
        """`function(task)` for each task, results in the order of `tasks`.

        Raises the error of a task (UserError, OSError and others unchanged), and UserError naming the task whose worker died,
        which is how running out of memory shows.
        """
        order = sorted(range(len(tasks)), key=lambda index: -tasks[index].get("size", 0))
        results: list[Any] = [None] * len(tasks)
        if self.settings.name == "dask":
            done = self._on_dask(function, tasks, order)
        elif min(self.workers, len(tasks)) > 1:
            done = self._on_processes(function, tasks, order)
        else:
            done = ((index, function(tasks[index])) for index in order)
        with contextlib.closing(done):
            for index, result in progress(done, total=len(tasks), desc=f"corpus: {title}", unit=" files", leave=False):
                results[index] = result
        return results

    def _on_processes(self, function: Function, tasks: list[Task], order: list[int]) -> Iterator[tuple[int, Any]]:
        context = multiprocessing.get_context("spawn")  # a fork would inherit locks held by threads of this process
        while len(self._pool) < min(self.workers, len(tasks)):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,))  # not a daemon: a reader may start helper processes
            process.start()
            theirs.close()
            self._pool.append((process, ours))
        waiting = list(reversed(order))
        busy: dict[Connection, int] = {}
        processes = {pipe: process for process, pipe in self._pool}
        finished = False
        try:
            while waiting or busy:
                for _, pipe in self._pool:
                    if waiting and pipe not in busy:
                        busy[pipe] = waiting.pop()
                        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # handled below, as an end of file
                            pipe.send((function, tasks[busy[pipe]]))
                for pipe in wait(list(busy)):
                    index = busy.pop(pipe)  # type: ignore[index]
                    try:
                        result, error, trace = pipe.recv()  # type: ignore[union-attr]
                    except (EOFError, ConnectionResetError):
                        processes[pipe].join(5)  # type: ignore[index]
                        code = processes[pipe].exitcode  # type: ignore[index]
                        raise died(tasks[index], f"exit code {code}") from None
                    if error is not None:
                        raise error from (RuntimeError(trace) if trace else None)
                    yield index, result
            finished = True
        finally:
            if not finished:  # an error or Ctrl-C: do not wait for the rest
                for process, pipe in self._pool:
                    process.terminate()
                    process.join()
                    pipe.close()
                self._pool = []

    def _connect(self) -> None:
        try:
            from distributed import Client, LocalCluster
        except ImportError:
            raise UserError("corpus.engine.name=dask needs dask. pip install -r requirements-extra.txt") from None
        if self.settings.address:
            try:
                self._client = Client(self.settings.address, timeout=30)
            except (OSError, ValueError, TimeoutError) as error:
                raise UserError(
                    f"corpus.engine.address={self.settings.address}: no Dask scheduler answers ({error}). "
                    "Start one, or leave the address out for a cluster on this machine."
                ) from None
        else:
            self._cluster = LocalCluster(n_workers=self.wanted, threads_per_worker=1, processes=True, dashboard_address=None)
            self._client = Client(self._cluster)
        if not self._client.scheduler_info()["workers"]:  # a scheduler's queue may hold them for hours
            print("corpus: no worker has come yet; waiting for the first one of the Dask cluster", file=sys.stderr, flush=True)

    def _on_dask(self, function: Function, tasks: list[Task], order: list[int]) -> Iterator[tuple[int, Any]]:
        """A dead worker loses only its current unit: Dask gives it to another worker, and gives up after a few deaths."""
        from distributed import KilledWorker, as_completed

        futures = {}
        for place, index in enumerate(order):
            future = self._client.submit(_guarded, function, tasks[index], pure=False, priority=-place)
            futures[future] = index
        try:
            for future in as_completed(list(futures)):
                index = futures[future]
                try:
                    result, error, trace = future.result()
                except KilledWorker:
                    raise died(tasks[index], "its Dask worker died each time") from None
                if error is not None:
                    raise error from (RuntimeError(trace) if trace else None)
                yield index, result
        finally:
            self._client.cancel(list(futures))


def died(task: Task, how: str) -> UserError:
    """The error for a task whose worker is gone."""
    return UserError(
        f"{task.get('name', 'a task')}: the process that worked on it was killed ({how}); most often memory ran out. "
        "Set corpus.engine.workers lower, or split the file; finished units are kept."
    )


def _guarded(function: Function, task: Task) -> tuple[Any, BaseException | None, str]:
    """(result, None, "") or (None, the error, its traceback as text; errors meant for the user need none)."""
    try:
        return function(task), None, ""
    except (UserError, OSError) as error:
        return None, error, ""
    except Exception as error:
        return None, RuntimeError(f"{task.get('name', 'a task')}: {type(error).__name__}: {error}"), traceback.format_exc()


def _work(pipe: Connection) -> None:
    """A worker process: tasks arrive through `pipe` until it closes. It never outlives the process that started it."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    while True:
        try:
            function, task = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(_guarded(function, task))


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
