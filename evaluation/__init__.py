"""Scores, intervals, baselines and the report, from prediction files alone; never imports torch."""
