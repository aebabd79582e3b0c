"""What can be backed up."""
