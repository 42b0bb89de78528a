"""Methods that change what a response is worth."""
