"""A map of descriptors: a layout in two dimensions, clusters, and how far both can be trusted."""
