"""The encoder, written by hand: attention, blocks, heads, and what applies them to text."""
