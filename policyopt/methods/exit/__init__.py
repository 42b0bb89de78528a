"""Methods that cut a thought short and look at what it would have answered."""
