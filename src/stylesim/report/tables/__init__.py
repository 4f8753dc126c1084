"""Tables of results as text, CSV, JSON and HTML."""
