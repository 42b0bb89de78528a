"""Methods that learn from who beats whom: the policy plays against its own responses, and no reward need say how good one is."""
