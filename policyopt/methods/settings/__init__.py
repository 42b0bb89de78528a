"""Guides: papers on how a run is set up, whatever its method: what moves the parameters, and how a batch grows."""
