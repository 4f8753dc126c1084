"""Plots and image galleries, as files and inside pages."""
