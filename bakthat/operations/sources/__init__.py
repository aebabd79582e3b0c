"""The sources that can be backed up."""
