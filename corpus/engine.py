"""Where units of work run: in this process, in several on this machine, or on a Dask cluster. The bytes are the same.

A unit function takes one JSON-able task and leaves its results in files (see corpus.units), so it may be run twice,
anywhere that sees the same folders. Tasks carry `size` (the largest go first, so that no worker is left with the long
one at the end) and `name` (what an error message calls them).
"""

import contextlib
import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from tqdm import tqdm

from common.errors import UserError

Task = dict[str, Any]
Function = Callable[[Task], Any]
NAMES = ("processes", "dask")
WORTH_A_PROCESS = 4 << 20  # bytes of input: below, starting a second process costs more than it saves


def check_engine(settings: dict[str, Any]) -> dict[str, Any]:
    """The engine's settings with defaults filled in; raises UserError for what cannot work."""
    settings = {"name": "processes", "workers": None, "address": None} | dict(settings or {})
    unknown = sorted(set(settings) - {"name", "workers", "address"})
    if unknown:
        raise UserError(f"corpus.engine.{unknown[0]}: no such setting. There are name, workers, address.")
    if settings["name"] not in NAMES:
        raise UserError(f"corpus.engine.name={settings['name']}: no such engine. Choose one of {', '.join(NAMES)}.")
    workers = settings["workers"]
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 1024:
        raise UserError(f"corpus.engine.workers={workers}: expected a whole number from 1 to 1024, or null for all cores.")
    if settings["address"] and settings["name"] != "dask":
        raise UserError("corpus.engine.address: only the dask engine has one. Set corpus.engine.name=dask.")
    return settings | {"workers": workers}


class Engine:
    """Runs unit functions over tasks; open it with `with`. `settings` as from `check_engine`, `work` bytes of input."""

    def __init__(self, settings: dict[str, Any], work: int):
        self.settings = settings
        self.workers = min(settings["workers"], max(1, work // WORTH_A_PROCESS))
        self._pool: list[tuple[multiprocessing.process.BaseProcess, Connection]] = []
        self._client: Any = None
        self._cluster: Any = None

    def __enter__(self) -> "Engine":
        if self.settings["name"] == "dask":
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

        Raises what a task raised (UserError, OSError and the like as they are), and UserError naming the task whose
        worker died, which is what running out of memory looks like.
        """
        order = sorted(range(len(tasks)), key=lambda index: -tasks[index].get("size", 0))
        results: list[Any] = [None] * len(tasks)
        if self.settings["name"] == "dask":
            done = self._on_dask(function, tasks, order)
        elif min(self.workers, len(tasks)) > 1:
            done = self._on_processes(function, tasks, order)
        else:
            done = ((index, function(tasks[index])) for index in order)
        with contextlib.closing(done):
            for index, result in tqdm(
                done, total=len(tasks), desc=f"corpus: {title}", unit=" files", disable=None, leave=False
            ):
                results[index] = result
        return results

    def _on_processes(self, function: Function, tasks: list[Task], order: list[int]) -> Iterator[tuple[int, Any]]:
        context = multiprocessing.get_context("spawn")  # a fork would inherit the lock on the corpus and live on with it
        while len(self._pool) < min(self.workers, len(tasks)):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,))  # no daemon: a reader may start helpers
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
                        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # met again below, as an end of file
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
            if not finished:  # an error or Ctrl-C: nobody waits for the rest
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
        if self.settings["address"]:
            try:
                self._client = Client(self.settings["address"], timeout=30)
            except (OSError, ValueError, TimeoutError) as error:
                raise UserError(
                    f"corpus.engine.address={self.settings['address']}: no Dask scheduler answers ({error}). "
                    "Start one, or leave the address out for a cluster on this machine."
                ) from None
        else:
            self._cluster = LocalCluster(
                n_workers=self.settings["workers"], threads_per_worker=1, processes=True, dashboard_address=None
            )
            self._client = Client(self._cluster)

    def _on_dask(self, function: Function, tasks: list[Task], order: list[int]) -> Iterator[tuple[int, Any]]:
        """A worker that dies loses only the unit it was at: Dask gives it to another, and gives up after a few deaths."""
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
    """What to say of a task whose worker is gone."""
    return UserError(
        f"{task.get('name', 'a task')}: the process that worked on it was killed ({how}); most often memory ran out. "
        "Set corpus.engine.workers lower, or split the file; what is finished is kept and used again."
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
    """A worker process: tasks come in through `pipe` until it closes. It never outlives the process that started it."""
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
