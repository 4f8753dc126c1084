"""Databases of descriptors with metadata: embedded in a folder (LanceDB), or served (PostgreSQL with pgvector)."""
