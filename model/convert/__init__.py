"""Conversion of checkpoints from and to Hugging Face formats, and from one vocabulary to another."""
