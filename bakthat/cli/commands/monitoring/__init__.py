"""The subcommands that tell how the backups are, and how they were."""
