"""Image files as training sets, and the data sets that are only evaluated."""
