"""Stage 2: names of artists, mediums and movements, their spellings, and how they are found in captions."""
