"""Language detection: the detector, its training and its data."""
