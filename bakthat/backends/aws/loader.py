"""Load botocore's descriptions of services faster than it does by itself.

Half of the time in which botocore makes a client goes into them, and a short command such as
``bakthat cat`` waits for it.
"""

from __future__ import annotations

import gzip
import json
import os
from typing import Any

from botocore.loaders import JSONFileLoader, Loader


def make_loader(service: str, search_path: str | None) -> Loader:
    """Return what loads the description of *service*.

    *search_path* is botocore's setting ``data_path``, directories of the user's own descriptions.
    """
    more = search_path.split(os.pathsep) if search_path else []
    directories = [os.path.expanduser(os.path.expandvars(each)) for each in more]
    return _Loader(service, directories)


class _Loader(Loader):
    def __init__(self, service: str, directories: list[str]) -> None:
        super().__init__(extra_search_paths=directories, file_loader=_Files())
        self._service = service

    def list_available_services(self, type_name: str) -> list[str]:
        """Return the one service that is used; botocore looks into 400 directories instead."""
        return [self._service]


class _Files(JSONFileLoader):
    def load_file(self, file_path: str) -> Any:
        """Return what the file holds, or None; with dict, not the slow OrderedDict of botocore."""
        try:
            with open(f"{file_path}.json", "rb") as plain:
                return json.load(plain)
        except FileNotFoundError:
            pass
        try:
            with gzip.open(f"{file_path}.json.gz", "rb") as packed:
                return json.load(packed)
        except FileNotFoundError:
            return None
