"""Samples, the shards, folders and tables that hold them, their order in training, and the data modules."""
