"""The published encoders that CSD is compared with."""
