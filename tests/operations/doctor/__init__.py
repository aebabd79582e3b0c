"""Tests of bakthat.operations.doctor."""
