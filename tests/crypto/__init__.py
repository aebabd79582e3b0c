"""Tests of bakthat.crypto."""
