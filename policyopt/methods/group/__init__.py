"""Methods that compare the responses to one prompt with each other."""
