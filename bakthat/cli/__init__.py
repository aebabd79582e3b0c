"""The command line: the only place that prints, asks or exits.

Every module of commands is loaded at each start, since ``--help`` lists all of them. So these
modules call the public functions of :mod:`bakthat`, which load when they are first used. The few
things that are not public are imported where they are used, for the same reason.
"""
