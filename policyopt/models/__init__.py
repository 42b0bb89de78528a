"""Models: loading, the embedded one and its tokenizer, log-probabilities, critics."""
