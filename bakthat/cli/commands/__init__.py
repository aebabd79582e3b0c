"""The subcommands, a module for each group of them; importing a module registers its commands."""
