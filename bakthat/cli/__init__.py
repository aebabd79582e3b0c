"""The command line: its commands, messages, questions and exit codes.

Below it, only :mod:`bakthat.passwords` asks, and only :func:`bakthat.show` prints. Errors are
raised there, and turned into exit codes here.

Every module of commands is loaded at each start, since ``--help`` lists all of them. So these
modules call the public functions of :mod:`bakthat`, which load when they are first used. The few
things that are not public, such as the plan that a dry run of retention shows, are imported where
they are used, for the same reason.
"""
