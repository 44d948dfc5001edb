"""Slurm as a sweep meets it: what a submission that failed means and what to do."""

import shutil

ALONE = "Without launcher=slurm the same command runs the jobs here, one after another; finished ones are skipped."


def refused(error: BaseException) -> str | None:
    """What to tell of an error of submitit, which hands the jobs of a sweep (-m launcher=slurm) to Slurm; None for another."""
    said = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and shutil.which("srun") is None and "srun" in said:
        return f"launcher=slurm: there is no srun on this machine. Start it where Slurm's commands are. {ALONE}"
    if not type(error).__module__.startswith("submitit"):
        return None
    if "has not produced any output" in said:  # killed, by a lack of memory, a lost node or scancel
        return (
            f"launcher=slurm: a job ended without a result ({said}). Start the same command again; finished jobs are skipped."
        )
    remedy = "`sinfo` must list nodes here, and what the launcher asks for (hydra.launcher.…) must be there."
    if "munge" in said.lower():
        remedy = "munge signs what is sent to Slurm; it must run here with the cluster's key: `munge -n | unmunge` shows it."
    elif "controller" in said:
        remedy = "Its controller (slurmctld) must be up: `scontrol ping` shows it."
    return f"launcher=slurm: Slurm did not take the jobs ({said}). {remedy} {ALONE}"
