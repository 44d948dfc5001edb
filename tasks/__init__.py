"""Tasks without torch: kinds of task, reading of their files, splits, examples and scores."""
