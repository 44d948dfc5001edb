"""Parts of the training loops: ranks, optimizers, schedules, checkpoints, tracking, FLOPs, held-out evaluation."""
