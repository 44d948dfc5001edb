"""Scores, intervals, baselines and the report, from prediction files alone; torch is never imported."""
