"""Turn captioned images from the web into a deduplicated data set of style tags, in stages."""
