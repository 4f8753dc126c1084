"""Find style tags in captions: the vocabulary, the words that count, and the matching."""
