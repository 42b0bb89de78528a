"""Rollouts: programs that draw responses."""
