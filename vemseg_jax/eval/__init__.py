"""Scores of predicted volumes, and the tables and plots that show them."""
