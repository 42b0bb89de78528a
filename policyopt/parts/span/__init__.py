"""Spans: places of a text."""
