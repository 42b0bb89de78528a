"""Selectors: which tokens and which rows something is about."""
