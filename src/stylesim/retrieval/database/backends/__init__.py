"""The systems that store a style database: LanceDB in a folder, PostgreSQL with pgvector on a server."""
