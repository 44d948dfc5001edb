"""Repair of what formats and encodings leave in text; placeholders for personal data."""
