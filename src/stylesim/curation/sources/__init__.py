"""Stage 1: images or URLs with captions, from LAION, img2dataset, or a user's own files."""
