"""HTML pages, plots, galleries and tables that show the results of runs."""
