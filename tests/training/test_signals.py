"""submitit's SIGUSR2: the checkpoint is written within a step, and only then is the job requeued."""

import os
import signal

import pytest

from tests.conftest import run_script, training_words, with_hooks
from training.signals import stop_signals

# What submitit does in a job: its handler has Slurm start the job again and leaves the process.
JOB = """
import os, signal, sys
def requeue(number, frame):
    print("requeued with", *sorted(path.name for path in folder.glob("checkpoints/step-*")), flush=True)
    sys.exit(-1)
signal.signal(signal.SIGUSR2, requeue)
def on_step(run):
    global folder
    folder = run.folder
    if run.state.step == 7:
        os.kill(os.getpid(), signal.SIGUSR2)
"""


def test_a_job_writes_its_checkpoint_before_it_is_requeued(prepared, tmp_path):
    words = training_words(prepared, tmp_path / "run", "checkpoint_every=null")
    result = run_script("-c", with_hooks(JOB), *words)
    assert result.returncode == 255 and "requeued with step-00000008" in result.stdout, result.stderr
    again = run_script(*words)
    assert again.returncode == 0 and "going on from step 8" in again.stdout


@pytest.fixture
def requeued():
    """The numbers with which the handler of before was called."""
    called: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: called.append(number))
    yield called
    signal.signal(signal.SIGUSR2, before)


def test_a_job_that_fails_is_not_requeued_and_its_handler_is_back(requeued):
    with pytest.raises(ValueError), stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert stop == [signal.SIGUSR2] and not requeued
        raise ValueError
    assert not requeued
    os.kill(os.getpid(), signal.SIGUSR2)
    assert requeued == [signal.SIGUSR2]


def test_without_submitit_the_signal_is_left_alone():
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    with stop_signals():
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
