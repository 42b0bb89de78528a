"""Who says what a response is worth, under limits. Nothing here imports torch."""
