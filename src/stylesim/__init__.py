"""stylesim."""
