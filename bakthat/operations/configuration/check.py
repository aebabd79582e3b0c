"""Check all profiles and jobs of the configuration, and the environment; say all that is wrong."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import NoneType

from bakthat import notify
from bakthat.conf import DEFAULT_PROFILE, Configuration, Job, LoadedProfile, read_configuration
from bakthat.conf.environment import Environment, read_environment
from bakthat.conf.files.config_file import JOBS, ConfigFile, path_of, readable_by_others
from bakthat.conf.loading import combined, faulty_keys, problem_of_name, problems_in
from bakthat.conf.profile import SECRET_FILES, SECRETS
from bakthat.conf.secrets import way_of
from bakthat.crypto import age
from bakthat.database.address import location_of
from bakthat.errors import ConfigError, KeyFormatError, UsageError
from bakthat.format import names
from bakthat.format.description import join_tags
from bakthat.operations.sources.databases import url
from bakthat.policy.finding import Finding, advice, failed, good, problem
from bakthat.policy.object_lock.rule import LockRule
from bakthat.policy.object_lock.until import check_derivable
from bakthat.policy.rotation import RotationPolicy
from bakthat.policy.settings import kms_key_problem
from bakthat.system.paths import PathLike, expanded
from bakthat.system.text import did_you_mean, from_native, printable

ENVIRONMENT, FILE = "environment", "file"
"""Topics of findings; others have the name of their profile."""
_CONTAINERS = {"s3": "s3_bucket", "glacier": "glacier_vault"}
_OWN_PLUGINS = "bakthat.notify."


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked, and what was found."""

    files: tuple[Path, ...]
    """The configuration files."""
    profiles: tuple[str, ...]
    jobs: tuple[str, ...]
    findings: tuple[Finding, ...]
    """The good ones too. Each detail that is about a place begins with it: "path:3: profile …"."""


def check_configuration(profile: str = DEFAULT_PROFILE, config: PathLike | None = None) -> Report:
    """Check all profiles and jobs, the environment, and that there is the profile *profile*.

    Nothing is connected to, no plugin is loaded, and no secret is read. Whatever is wrong is a
    finding. A problem is what makes an operation with that profile fail.
    """
    environment = read_environment()
    findings = [
        *(failed(ENVIRONMENT, each) for each in environment.problems),
        *(advice(ENVIRONMENT, each) for each in environment.unknown),
    ]
    try:
        configuration = read_configuration(config)
    except ConfigError as exc:
        return Report((path_of(config),), (), (), (failed(FILE, exc), *findings))
    files = configuration.files
    findings = [*(each for file in files for each in _about_file(file.path)), *findings]
    missing = problem_of_name(profile, configuration)
    if missing is not None:
        findings.append(failed(printable(profile), missing))
    profiles: Mapping[str, ConfigFile | None] = configuration.profiles
    if not files and missing is None:
        profiles = {DEFAULT_PROFILE: None}
    for name, file in profiles.items():
        path = configuration.path if file is None else file.path
        findings += _about_profile(name, path, file, environment, is_used=name == profile)
    findings += _about_jobs(configuration, environment)
    # What is wrong with a variable is so in each profile.
    return Report(
        tuple(each.path for each in files),
        tuple(profiles),
        tuple(configuration.unchecked_jobs),
        tuple(_distinct(findings)),
    )


def _distinct(findings: list[Finding]) -> Iterator[Finding]:
    seen = set()
    for each in findings:
        if each.detail not in seen:
            seen.add(each.detail)
            yield each


def _about_file(path: Path) -> Iterator[Finding]:
    warning, _, hint = readable_by_others(path).partition(": ")
    if warning:
        yield advice(FILE, printable(warning), printable(hint))


def _about_profile(
    name: str, path: Path, file: ConfigFile | None, environment: Environment, *, is_used: bool
) -> Iterator[Finding]:
    topic = printable(name)
    found: list[Finding] = []
    faulty: frozenset[str] = frozenset()
    if file is not None:
        found += [failed(topic, each) for each in problems_in(file, name)]
        if not isinstance(file.profiles[name], (Mapping, NoneType)):
            yield from found
            return
        faulty = faulty_keys(file, name)
    loaded = combined(name, path, file, environment, without=faulty)
    found += _about_values(topic, loaded)
    if not faulty & {"default_destination", *_CONTAINERS.values()}:
        found += _about_destination(topic, loaded, is_used=is_used)
    yield from found
    if not any(each.is_problem for each in found):
        yield good(topic, f"profile '{topic}' is valid")


def _about_jobs(configuration: Configuration, environment: Environment) -> Iterator[Finding]:
    problems = [failed(JOBS, each) for each in configuration.problems_of_jobs()]
    yield from problems
    if problems:
        return
    for name, loaded_job in configuration.jobs.items():
        job, topic = loaded_job.job, printable(name)
        file = configuration.profiles[job.profile]
        if any(problems_in(file, job.profile)):
            continue  # which was said
        profile = combined(job.profile, file.path, file, environment)
        where = f"{loaded_job.place}: job '{topic}'"
        if job.rotate and not profile.profile.rotation:
            yield problem(
                topic,
                f"{where}: 'rotate' is true, but its profile has no rotation",
                "say in the profile what to keep, such as rotation: {days: 7, weeks: 4}",
            )
        for keys, what, check in _checks_of(job):
            try:
                check()
            except UsageError as exc:
                place = configuration.unchecked_jobs[name].place(JOBS, name, *keys)
                yield problem(topic, f"{place}: job '{topic}': {what}: {exc}", exc.hint)
        if job.notify is not None:
            yield from _about_plugins(topic, profile.with_plugins(job.notify), where)


def _checks_of(job: Job) -> Iterator[tuple[tuple[str | int, ...], str, Callable[[], object]]]:
    """Yield where the parts of a job are written, what they are called, and what checks each."""
    for number, source in enumerate(job.sources):
        keys, what = ("sources", number), f"source {number + 1}"
        if source.is_url:
            yield keys, what, partial(url.parts, source.path)
        if source.name or not source.is_url:
            name = source.name or from_native(os.path.basename(source.path))
            yield keys, what, partial(_check_name, name)
        yield keys, what, partial(join_tags, (*job.tags, *source.tags))
    if job.drill is not None and job.drill.into is not None:
        yield ("drill", "into"), "'into'", partial(url.parts, job.drill.into)


def _check_name(name: str) -> None:
    try:
        names.check_set_name(name)
    except UsageError as exc:
        raise UsageError(
            str(exc), hint="write the source as a mapping with another name: {path: …, name: …}"
        ) from exc


def _about_values(topic: str, loaded: LoadedProfile) -> Iterator[Finding]:
    """Yield what is wrong with values of the right type."""
    yield from _about_rotation(topic, loaded)
    yield from _about_kms(topic, loaded)
    yield from _about_locks(topic, loaded)
    yield from _about_recipients(topic, loaded)
    yield from _about_files(topic, loaded)
    yield from _about_catalog(topic, loaded)
    yield from _about_plugins(topic, loaded, loaded.place("plugins"))


def _about_catalog(topic: str, loaded: LoadedProfile) -> Iterator[Finding]:
    if way_of(loaded, "database") != "database":
        return  # no secret is read
    try:
        catalog = location_of(loaded.profile.database)
    except ConfigError as exc:
        yield problem(topic, f"{loaded.place('database')}: {exc}", exc.hint)
        return
    if not isinstance(catalog, Path) and find_spec(catalog.driver) is None:
        missing = catalog.missing_driver()
        yield problem(topic, f"{loaded.place('database')}: {missing}", missing.hint)


def _about_destination(topic: str, loaded: LoadedProfile, *, is_used: bool) -> Iterator[Finding]:
    profile = loaded.profile
    container = _CONTAINERS.get(profile.default_destination)
    if container is not None and getattr(profile, container) is None:
        # Another profile may hold what others merge, or be used with a destination in each command.
        kind = problem if is_used else advice
        yield kind(
            topic,
            f"{loaded.place('default_destination')}: backups go to {profile.default_destination}, "
            f"but no '{container}' is set",
            f"set {container}, or default_destination",
        )


def _about_rotation(topic: str, loaded: LoadedProfile) -> Iterator[Finding]:
    if loaded.profile.rotation:
        try:
            RotationPolicy.from_mapping(loaded.profile.rotation)
        except ConfigError as exc:
            yield problem(topic, f"{loaded.place('rotation')}: {exc}", exc.hint)


def _about_kms(topic: str, loaded: LoadedProfile) -> Iterator[Finding]:
    key = "sse_kms_key_id"
    found = kms_key_problem(loaded.profile.as_mapping())
    if found is not None:
        yield problem(topic, f"{loaded.place(key)}: '{key}' {found.text}", found.hint)


def _about_locks(topic: str, loaded: LoadedProfile) -> Iterator[Finding]:
    profile = loaded.profile
    rule = LockRule.of(profile.object_lock)
    if rule is None:
        return
    try:
        policy = RotationPolicy.from_mapping(profile.rotation) if profile.rotation else None
    except ConfigError:
        return  # which was said
    try:
        check_derivable(rule, policy)
    except ConfigError as exc:
        kind = problem if profile.default_destination == "s3" else advice
        yield kind(topic, f"{loaded.place('object_lock')}: {exc}", exc.hint)


def _about_recipients(topic: str, loaded: LoadedProfile) -> Iterator[Finding]:
    for number, recipient in enumerate(loaded.profile.recipients, 1):
        try:
            age.parse_recipient(recipient)
        except KeyFormatError as exc:
            # It may be a password, so it is not quoted.
            detail = f"'recipients' entry {number} is no public key of age"
            yield problem(topic, f"{loaded.place('recipients')}: {detail}", exc.hint)


def _about_files(topic: str, loaded: LoadedProfile) -> Iterator[Finding]:
    values = loaded.profile.as_mapping()
    for key in (*SECRET_FILES, "identity_file"):
        path = values[key]
        reason = _unreadable(path) if path is not None else ""
        if reason:
            detail = f"{loaded.place(key)}: the file of '{key}' {reason}"
            # Without a private key backups are made all the same.
            is_needed = key != "identity_file"
            yield problem(topic, detail) if is_needed else advice(topic, detail)


def _unreadable(path: str) -> str:
    """Return why a file cannot be read, or ""; it is not opened, since it may be a pipe."""
    try:
        file = expanded(path)
    except ConfigError as exc:
        return f"cannot be found: {exc}"
    shown = printable(file)
    if not os.path.exists(file):
        return f"does not exist: {shown}"
    if os.path.isdir(file):
        return f"is a directory: {shown}"
    return "" if os.access(file, os.R_OK) else f"cannot be read: {shown}"


def _about_plugins(topic: str, loaded: LoadedProfile, where: str) -> Iterator[Finding]:
    """Yield what is wrong with the plugins of a profile, which are named at *where*."""
    profile = loaded.profile
    own = {f"{_OWN_PLUGINS}{name}": getattr(notify, name) for name in notify.__all__}
    for name in profile.plugins:
        if name in own:
            section = own[name].section
            if section in SECRETS and way_of(loaded, section) not in (None, section):
                continue  # what has the settings may be a secret, which is not read
            try:
                own[name].settings_in(loaded.mapping)
            except ConfigError as exc:
                yield problem(topic, f"{loaded.place(section)}: {exc}", exc.hint)
        elif name.startswith(_OWN_PLUGINS):
            detail = f"{where}: there is no plugin '{printable(name)}'"
            yield problem(topic, detail, did_you_mean(name, own))
    if any(not name.startswith(_OWN_PLUGINS) for name in profile.plugins):
        try:
            directory = expanded(profile.plugins_dir)
        except ConfigError as exc:
            yield failed(topic, exc)
            return
        if not directory.is_dir():
            shown = printable(directory)
            yield advice(
                topic,
                f"{where}: there is no directory of plugins: {shown}",
                f"mkdir -m 700 {shlex.quote(shown)}, or name installed packages only",
            )
