"""Read captioned images from folders, tables of URLs and img2dataset, and download what is missing."""
