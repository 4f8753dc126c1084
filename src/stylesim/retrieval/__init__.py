"""From descriptors to neighbours to figures. Nothing here loads a model."""
