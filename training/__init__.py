"""What the loops call: ranks, optimizers, schedules, checkpoints, tracking, FLOPs, held-out evaluation."""
