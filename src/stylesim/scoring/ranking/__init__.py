"""Ranking: many sets of generated images against one reference, by style and by what else matters."""
