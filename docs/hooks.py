"""Hooks of the documentation site."""
