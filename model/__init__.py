"""The encoder (attention, blocks, heads) and programs that apply it to text."""
