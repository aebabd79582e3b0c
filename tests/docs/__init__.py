"""Tests of what the documentation says: its examples, its commands, the layers of the code."""
