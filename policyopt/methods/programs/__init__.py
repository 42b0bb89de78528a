"""Methods whose responses are programs, which a compiler, a simulator or a grader puts to the test."""
