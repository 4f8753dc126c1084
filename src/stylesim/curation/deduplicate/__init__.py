"""Stage 4: fingerprints, descriptors, groups of near-duplicates, and evaluation sets to clear the images of."""
