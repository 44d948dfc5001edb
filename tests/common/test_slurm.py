"""launcher=slurm where there is no Slurm, or not all of it, is one line that says what to do."""

from importlib.util import find_spec

from common.slurm import refused
from tests.conftest import run_script


def test_a_sweep_without_slurm_says_what_is_missing_and_how_it_runs_here(tmp_path):
    words = ["train.py", "-m", "launcher=slurm", "seed=0", f"hydra.sweep.dir={tmp_path}"]
    result = run_script(*words, PATH="/nowhere")
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    assert ("no srun" if find_spec("submitit") else "pip install -r requirements-extra.txt") in result.stderr
    assert "one after another" in result.stderr


def test_other_errors_keep_their_traceback():
    assert refused(ValueError("srun")) is None and refused(OSError("sbatch: munge")) is None
