"""Text to pieces and back: one interface over WordPiece (tokenizers) and Unigram / BPE (sentencepiece)."""
