"""Methods with several judges, or with a judge that changes."""
