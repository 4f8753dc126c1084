"""What a run shows: one HTML file that needs nothing beside it, and the pictures and tables it is made of."""
