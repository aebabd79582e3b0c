"""Disasters on purpose: kills, disks and networks that fail, inputs of any bytes.

``python -m tests.reliability`` makes them happen and looks afterwards whether anything was lost.
Its figures stand in docs/explanation/reliability.rst.
"""
