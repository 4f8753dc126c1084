"""Shards in WebDataset's format: their writer, their index, and reading samples at any position."""
