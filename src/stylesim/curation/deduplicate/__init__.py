"""Find near-duplicates among images, and images of evaluation sets among training images."""
