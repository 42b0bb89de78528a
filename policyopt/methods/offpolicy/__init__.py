"""Methods that learn from responses of other policies than the present one."""
