"""Descriptor sets, their nearest neighbours, and read-outs. Nothing here loads a model."""
