"""The lines of an index (docs/explanation/format.rst): packed, and parsed strictly.

An index is JSON lines: a header, segments of records, the lengths of the archive's gzip members,
and a footer. Here is only text; :mod:`bakthat.archive.index` puts it into gzip members. Whoever may
write to the storage can write an index, so nothing in it is used unchecked.
"""
