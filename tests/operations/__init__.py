"""Tests of bakthat.operations."""
