"""Check that the listed backups are stored and, on request, that they can be read to their end.

Nothing is stored, deleted or thawed. A damaged backup does not stop the check of the others.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from bakthat import models
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import NoMatchError, UsageError
from bakthat.operations.check.data import read_all
from bakthat.operations.check.needed import NeededArchives
from bakthat.operations.check.record import record_checks
from bakthat.operations.check.result import CheckResult
from bakthat.operations.check.stored import stat_all, with_index_problems
from bakthat.passwords import may_ask
from bakthat.session.container import recognize_moved
from bakthat.session.lookup import find_backups
from bakthat.session.reading import KeyFinder
from bakthat.session.session import Session, operation, result_log
from bakthat.session.sets import newest_first
from bakthat.system.paths import PathLike
from bakthat.system.streams import Progress
from bakthat.system.text import printable


def check(
    filename: str = "",
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    read_data: bool = False,
    sample: int | str | None = None,
    password: str | None = None,
    identity_file: PathLike | None = None,
    prompt: str | bool = "yes",
    progress: Progress | None = None,
) -> list[CheckResult]:
    """Check that the backups in the catalog are stored; return one result for each backup.

    By default all backups of the profile's containers are checked. *destination* restricts the
    check to one container, and *host* to one host. *filename* restricts it to a backup by its
    stored filename, to a set by its name, or to the backups whose stored filename begins with it.
    *sample* is a number of backups to pick at random, or text such as ``5%``: that share of the
    data of each backup is read, from a random place on, so that each check reads another part.

    By default existence and size are checked, and whether the index is there; of an increment also
    existence, size and id of every archive that it needs. With *read_data*, each backup is
    downloaded, decrypted, decompressed and read to the end of its archive; nothing is written. Each
    file is compared with the SHA-256 in the index, and the files that differ are named. *password*,
    *identity_file* and *prompt* are as for :func:`bakthat.restore`; a password is asked for once. A
    backup in cold storage is not thawed, and is read only if it is thawed already.
    *progress* is called with the bytes read and the bytes to read, or where nothing is read with
    the numbers of backups.

    The results are kept in the catalog, and in each entry's ``metadata["check"]``: "date" (epoch
    seconds UTC), "verdict", "detail", "share" (what was read of its data, up to 1; or null) and
    "read" (when data of it was last found right; or null). "damaged" stays there until the backup
    was read to its end.

    A problem with a backup is in its result, and is not raised. Raises NoMatchError, also when
    there is no backup to check, UsageError, ConfigError.
    """
    number, share = _parse_sample(sample)
    session = Session(profile, config, conf, destination)
    with operation(session, "check", deferred=True):
        backups = _select(session, filename, host)
        if number is not None and number < len(backups):
            picked = {each.stored_filename for each in random.sample(backups, number)}
            backups = [each for each in backups if each.stored_filename in picked]
        is_read = read_data or share is not None
        found = stat_all(session, backups, None if is_read else progress)
        found = list(with_index_problems(session, found))
        needed = NeededArchives(session, found)
        found = [needed.proved(each) for each in found]
        if is_read:
            keys = KeyFinder(session, password, identity_file, may_ask(prompt))
            share = 1.0 if read_data else share
            found = list(read_all(session, found, needed, keys, share, progress))
        found = needed.with_dependents(found)
        if not found:
            raise NoMatchError(
                f"nothing to check: {_description_of_none(session, host)}",
                hint="bakthat sync lists what is stored",
            )
        record_checks(session, found, share if is_read else None)
    good = sum(each.is_good for each in found)
    result_log.info("Checked %d backups: %d good, %d wrong", len(found), good, len(found) - good)
    return found


def _parse_sample(sample: int | str | None) -> tuple[int | None, float | None]:
    """Return the number of backups, and the share of their data. Raises UsageError."""
    if isinstance(sample, str) and re.fullmatch(r"\d{1,3}(\.\d+)?%", sample):
        share = float(sample[:-1]) / 100
        if 0 < share <= 1:
            return None, share
    elif isinstance(sample, str) and sample.isdecimal():
        return _parse_sample(int(sample))
    elif sample is None or (isinstance(sample, int) and sample is not True and sample >= 1):
        return sample, None
    raise UsageError(
        f"the sample {sample!r} is neither a number from 1 on nor a share",
        hint="give a number of backups, or a share of their data such as --sample 5%",
    )


def _select(session: Session, filename: str, host: str | None) -> list[models.Backups]:
    if filename:
        return find_backups(session, filename, host=host)
    named = [session.named_destination] if session.named_destination else []
    recognize_moved(session)
    with models.catalog(session.catalog):
        found = models.Backups.search("", session.containers(*named))
    return newest_first(each for each in found if host is None or each.host == host)


def _description_of_none(session: Session, host: str | None) -> str:
    of_host = "" if host is None else f" of {printable(host)}"
    where = session.named_destination or "the profile's containers"
    return f"the catalog {printable(str(session.catalog))} has no backup{of_host} in {where}"
