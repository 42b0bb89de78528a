"""Agents: credit, sampling and rewards of episodes that have turns."""
