"""Methods that let the policy go on from the beginning of a worked solution, where it fails alone or always."""
