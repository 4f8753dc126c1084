"""What every other package builds on: errors, safely opened images, progress, atomic files and ranks."""
