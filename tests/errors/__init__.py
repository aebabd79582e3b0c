"""Every error of the code, with the test whose input causes it."""
