"""Plugins: classes that a profile names, whose callbacks run at every operation on that profile.

The profile's ``plugins`` are dotted names, ``module.Class``; the modules are in ``plugins_dir`` or
installed. Plugins are activated in that order, once for each process and profile, before the first
operation on the profile, and deactivated in the reverse order when the process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import hashlib
import importlib
import importlib.util
import logging
import os
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, TypeGuard

from bakthat.conf import LoadedProfile
from bakthat.conf.profile import SECRETS
from bakthat.conf.secrets import read_secret, way_of
from bakthat.errors import BakthatError, ConfigError
from bakthat.hooks import EVENT_NAMES, Events
from bakthat.system.paths import expanded
from bakthat.system.text import printable

log = logging.getLogger("bakthat")


class Plugin(Events, ABC):
    """The base class of every plugin: a set of events, a configuration and a log.

    The events are attributes, as those of :data:`bakthat.events` are. Callbacks on them are called
    for operations on the plugin's profile only: ``self.on_backup += self.notify``.
    """

    log: logging.Logger = logging.getLogger("bakthat")
    """bakthat's log."""
    section: str = "plugin_settings"
    """The key of the profile with the plugin's settings. In :attr:`conf` it has them also where a
    file or a program gives them."""

    def __init__(self, conf: Mapping[str, Any]) -> None:
        """Store a copy of the profile as the user wrote it, with absolute paths."""
        super().__init__()
        self.conf: dict[str, Any] = copy.deepcopy(dict(conf))

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name in EVENT_NAMES:
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__name__}.{name} would hide the event {name}: "
                    f"choose another name and add it in activate, by self.{name} += …"
                )

    @abstractmethod
    def activate(self) -> None:
        """Add callbacks to events. Called once for each process and profile."""

    def deactivate(self) -> None:
        """Release resources. Called once, at exit, if :meth:`activate` succeeded."""


@dataclass
class _Activation:
    """The plugins of one profile that are active."""

    origin: str
    name: str
    mapping: Mapping[str, Any]
    plugins: list[Plugin] = field(default_factory=list)
    is_under_way: bool = False
    """Whether they are being activated or deactivated at the moment."""


_lock = threading.RLock()
_activations: list[_Activation] = []


def activate_plugins(loaded: LoadedProfile, *, patience: float | None = None) -> tuple[Plugin, ...]:
    """Activate the plugins of a profile unless they are active; return them in their order.

    Two profiles are the same when their file, name and content are. A plugin that fails is tried
    again at the next operation; the ones before it are not activated twice. *patience* is how many
    seconds a program that prints settings may take; None is for ever. Raises ConfigError.
    """
    if not loaded.profile.plugins:
        return ()
    with _lock:
        current = _activation_of(loaded)
        # An operation called within activate() has only the plugins before that one.
        if not current.is_under_way:
            current.is_under_way = True
            try:
                for dotted_name in loaded.profile.plugins[len(current.plugins) :]:
                    current.plugins.append(_activate(dotted_name, loaded, patience))
            finally:
                current.is_under_way = False
        return tuple(current.plugins)


def deactivate_plugins() -> None:
    """Deactivate all plugins, the last one first; log their exceptions."""
    with _lock:
        while _activations:
            last = _activations[-1]
            last.is_under_way = True  # so that an operation called by a plugin activates none
            while last.plugins:
                _deactivate(last.plugins.pop())
            _activations[:] = [each for each in _activations if each is not last]


def _deactivate(plugin: Plugin) -> None:
    try:
        plugin.deactivate()
    except (Exception, SystemExit) as exc:
        log.warning(
            "plugin %s: deactivate failed: %s: %s",
            type(plugin).__qualname__,
            type(exc).__name__,
            exc,
            exc_info=exc if log.isEnabledFor(logging.DEBUG) else None,
        )


def _activation_of(loaded: LoadedProfile) -> _Activation:
    for each in _activations:
        if (each.origin, each.name, each.mapping) == (loaded.origin, loaded.name, loaded.mapping):
            return each
    if not _activations:
        atexit.register(deactivate_plugins)
    _activations.append(
        _Activation(loaded.origin, loaded.name, copy.deepcopy(dict(loaded.mapping)))
    )
    return _activations[-1]


def _activate(dotted_name: str, loaded: LoadedProfile, patience: float | None) -> Plugin:
    where = f"{loaded.place('plugins')}: plugin '{printable(dotted_name)}'"
    directory = str(expanded(loaded.profile.plugins_dir))
    module_name, _, class_name = dotted_name.rpartition(".")
    if not (module_name and all(part.isidentifier() for part in dotted_name.split("."))):
        raise ConfigError(
            f"{where}: it does not name a module and a class", hint="write it as my_module.MyPlugin"
        )
    _refuse_open_directory(directory, where)
    module = None
    with _importable(directory):
        try:
            module = _import(module_name, directory)
            kind = _plugin_class(module, class_name)
            plugin = kind(_with_settings(loaded.mapping, kind.section, patience))
            model_before = vars(module).get("Backups")
            plugin.activate()
            _adopt_model(model_before, vars(module).get("Backups"))
        except BakthatError as exc:
            raise ConfigError(f"{where}: {exc}", hint=exc.hint) from exc
        except (Exception, SystemExit) as exc:
            message = printable(" ".join(str(exc).split()))
            place = _place(exc, module)
            raise ConfigError(f"{where}: {place}{type(exc).__name__}: {message}") from exc
    return plugin


def _with_settings(
    mapping: Mapping[str, Any], section: str, patience: float | None
) -> Mapping[str, Any]:
    """Return the profile, with the settings in place where a file or a program gives them."""
    if section not in SECRETS or way_of(mapping, section) in (None, section):
        return mapping
    return {**mapping, section: read_secret(mapping, section, timeout=patience)}


def _refuse_open_directory(directory: str, where: str) -> None:
    """Raise ConfigError when every user of the machine can put code into the directory."""
    with contextlib.suppress(OSError):  # a directory that does not exist has no code
        if os.stat(directory).st_mode & 0o002:
            raise ConfigError(
                f"{where}: everyone can write to {printable(directory)}",
                hint=f"chmod o-w {printable(directory)}",
            )


@contextlib.contextmanager
def _importable(directory: str) -> Iterator[None]:
    """Let plugins import modules of their directory; installed modules come first."""
    if directory in sys.path or not os.path.isdir(directory):
        yield
        return
    importlib.invalidate_caches()
    sys.path.append(directory)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(directory)


def _import(module_name: str, directory: str) -> ModuleType:
    first = module_name.partition(".")[0]
    package = ""
    if first != "bakthat" and PathFinder.find_spec(first, [directory]):
        package = f"{_package_of(directory)}."
    try:
        return importlib.import_module(package + module_name)
    except ModuleNotFoundError as exc:
        missing = str(exc.name).removeprefix(package)
        if f"{module_name}.".startswith(f"{missing}."):
            raise ConfigError(
                f"there is no module '{missing}' in {printable(directory)}, "
                "nor among the installed packages",
                hint="put it there, install it, or set another plugins_dir",
            ) from exc
        raise


def _package_of(directory: str) -> str:
    """Make a directory a package with a unique name, and return that name.

    Two directories may hold plugins of one name, and a plugin may have the name of a standard
    module, which it must not hide.
    """
    name = f"bakthat_plugins_{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}"
    if name not in sys.modules:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [directory]
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return name


def _plugin_class(module: ModuleType, class_name: str) -> type[Plugin]:
    found = vars(module).get(class_name)
    place = _file_of(module)
    if class_name not in vars(module):
        others = [name for name, each in vars(module).items() if _is_plugin(each)]
        raise ConfigError(
            f"there is no class '{class_name}' in {place}",
            hint=f"use one of: {', '.join(others)}" if others else "",
        )
    if not _is_plugin(found):
        raise ConfigError(
            f"'{class_name}' in {place} is not a subclass of bakthat.plugin.Plugin",
            hint=f"let it begin with: class {class_name}(Plugin)",
        )
    return found


def _is_plugin(value: object) -> TypeGuard[type[Plugin]]:
    return isinstance(value, type) and issubclass(value, Plugin) and value is not Plugin


def _adopt_model(before: object, after: object) -> None:
    """Use the model that a plugin assigned to its global name ``Backups``.

    The guide's ``global Backups; Backups = MyBackups`` changes the plugin's module only.
    """
    from bakthat import models  # here, since few profiles have plugins

    if after is before or not isinstance(after, type):
        return
    if issubclass(after, models.ORIGINAL_BACKUPS):
        setattr(models, "Backups", after)  # noqa: B010  # mypy forbids to assign to a class


def _file_of(module: ModuleType) -> str:
    return printable(str(getattr(module, "__file__", None) or module.__name__))


def _place(exc: BaseException, module: ModuleType | None) -> str:
    """Return the file and line where a plugin failed; *module* is None if it was not loaded."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{printable(exc.filename)}: "  # its message has the line
    for frame in traceback.extract_tb(exc.__traceback__):
        machinery = frame.filename in (__file__, importlib.__file__)
        if not (machinery or frame.filename.startswith("<frozen ")):
            return f"{printable(frame.filename)}:{frame.lineno}: "
    return "" if module is None else f"{_file_of(module)}: "
