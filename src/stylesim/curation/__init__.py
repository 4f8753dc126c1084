"""From captioned images of the web to a deduplicated data set of tags: a folder of parquet per stage."""
