"""Methods that help the policy where it fails alone, or always: with the beginning of a worked solution, what a guide
wrote, other words for the question, a critique."""
