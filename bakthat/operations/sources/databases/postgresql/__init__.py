"""PostgreSQL: its databases and what a server has besides them."""
