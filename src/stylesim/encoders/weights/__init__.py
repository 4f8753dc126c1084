"""Weight files: where they are published, how they are found, downloaded, read and written."""
