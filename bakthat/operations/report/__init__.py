"""A report for an auditor: what was backed up in a period, what was not, and what became of it."""
