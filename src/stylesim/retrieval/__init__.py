"""From descriptors to neighbours to metrics. Nothing here loads a model."""
