"""Inputs of any bytes for everything that reads what others may have written."""
