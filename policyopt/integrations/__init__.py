"""Recipes inside the training loops of others: TRL, verl, prime-rl.

``served`` says what a recipe is there, and which loop can serve which; each of the other modules is about one host and needs
its package where the host's own classes come in.
"""
