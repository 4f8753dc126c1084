"""Copy check: whether an image, or a part of it, copies a work. It never feeds the verdict on style."""
