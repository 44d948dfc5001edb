"""Labelled data sets from raw material: built, split, checked and described."""
