"""How the backups are: what is there, how old it is, and what is wrong."""
