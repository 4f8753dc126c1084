"""From encoders and images to descriptor sets, retrieval metrics and their statistics."""
