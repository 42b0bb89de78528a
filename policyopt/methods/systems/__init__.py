"""Guides: papers on how texts pass a model with less memory or time; they change no method and no gradient, or say how far."""
