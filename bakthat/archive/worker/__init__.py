"""A second process that works for this one."""
