"""HTML pages, plots, galleries and tables that show what a run found."""
