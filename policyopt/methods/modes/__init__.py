"""Methods about when to think: a response decides by itself how it answers."""
