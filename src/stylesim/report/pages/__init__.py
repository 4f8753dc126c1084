"""The pages that commands write: of a run, a score, a search and an attribution."""
