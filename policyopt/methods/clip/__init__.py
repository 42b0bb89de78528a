"""Methods that change what happens to ratios far from one."""
