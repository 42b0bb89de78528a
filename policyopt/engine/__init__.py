"""Engines: what runs the models."""
