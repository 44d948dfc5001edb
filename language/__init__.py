"""What is true of one language and of nothing else: one file a language."""
