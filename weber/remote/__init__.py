"""Other machines that work for this one."""
