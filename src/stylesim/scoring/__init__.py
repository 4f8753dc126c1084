"""Style similarity of generated images and reference works."""
