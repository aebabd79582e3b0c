"""How fast bakthat is, beside what a user would pick instead: ``python -m tests.benchmarks``.

``datasets`` makes what is backed up, ``peers`` knows the commands, ``measuring`` runs one of them
and watches its processes, the ``*_runs`` modules decide what runs after what, and ``figures``,
``tables`` and ``chart`` turn the runs into what the documentation shows.
docs/explanation/benchmarks.rst says what is measured and how.
"""
