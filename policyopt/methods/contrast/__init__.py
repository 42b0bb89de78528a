"""Methods whose loss compares the responses to one prompt with each other."""
