"""Text to tokens and back: one interface over WordPiece (tokenizers) and Unigram / BPE (sentencepiece)."""
