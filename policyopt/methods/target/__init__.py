"""Methods that make texts likelier that the policy is not judged by: references, explanations of the answer."""
