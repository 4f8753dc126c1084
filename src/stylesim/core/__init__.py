"""What every other package builds on: errors, files, images, progress, and checks of configurations."""
