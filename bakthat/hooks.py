"""The events to which scripts and plugins add callbacks.

They are built on the library Events (https://github.com/pyeve/events). This module declares their
names and types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, Protocol, Self

if TYPE_CHECKING:
    from bakthat.models import Backups

    EventsLibrary = object  # so that mypy refuses unknown events
else:
    from events import Events as EventsLibrary

OPERATIONS = (
    "backup",
    "restore",
    "drill",
    "hold",
    "release",
    "delete",
    "delete_older_than",
    "rotate_backups",
)
RUN = "run"
"""A job, which runs several operations."""
EVENT_NAMES = (
    *(f"{moment}_{name}" for name in (*OPERATIONS, RUN) for moment in ("before", "on")),
    "on_error",
)

Arguments = ParamSpec("Arguments")


class EventSlot(Generic[Arguments]):
    """The callbacks of one event, in the order in which they were added."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._callbacks: list[Callable[Arguments, object]] = []

    def __iadd__(self, callback: Callable[Arguments, object]) -> Self:
        if not callable(callback):
            raise TypeError(f"{self.name} += needs a function, not {callback!r}")
        self._callbacks.append(callback)
        return self

    def __isub__(self, callback: Callable[Arguments, object]) -> Self:
        """Remove a callback, however often it was added. An unknown callback is no error."""
        self._callbacks = [each for each in self._callbacks if each != callback]
        return self

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        """Call the callbacks in order, until one raises."""
        for callback in self:
            callback(*args, **kwargs)

    def __iter__(self) -> Iterator[Callable[Arguments, object]]:
        """Iterate over a copy, so that a callback may add and remove callbacks."""
        return iter(tuple(self._callbacks))

    def __len__(self) -> int:
        return len(self._callbacks)

    def __repr__(self) -> str:
        return f"<event {self.name}: {len(self)} callbacks>"


class JobResult(Protocol):
    """What ``on_run`` callbacks get: a :class:`bakthat.jobs.report.JobReport`."""

    job: str
    """Its name."""
    seconds: float
    """How long it took."""

    @property
    def outcome(self) -> str:
        """ "done", "incomplete", "locked" or "failed"."""

    @property
    def backups(self) -> Sequence[Backups]:
        """The backups that were stored."""

    @property
    def all_problems(self) -> Sequence[Exception]:
        """What has failed."""


class Events(EventsLibrary):
    """The events: ``events.before_backup += callback`` adds a callback, ``-=`` removes it.

    Every callback gets the session id first, a uuid4 as text, which is the same for all events of
    one operation. ``on_`` callbacks get the result too: the backup, the list of deleted backups, or
    what a job has done. ``before_run`` and ``on_run`` surround a job, whose operations have their
    own events; ``on_run`` fires also when the job has failed.
    ``on_error`` callbacks get the session id, the operation's name and the exception.
    """

    before_backup: EventSlot[[str]]
    on_backup: EventSlot[[str, Backups]]
    before_restore: EventSlot[[str]]
    on_restore: EventSlot[[str, Backups]]
    before_drill: EventSlot[[str]]
    on_drill: EventSlot[[str, Backups]]
    before_hold: EventSlot[[str]]
    on_hold: EventSlot[[str, Backups]]
    before_release: EventSlot[[str]]
    on_release: EventSlot[[str, Backups]]
    before_delete: EventSlot[[str]]
    on_delete: EventSlot[[str, Backups]]
    before_delete_older_than: EventSlot[[str]]
    on_delete_older_than: EventSlot[[str, list[Backups]]]
    before_rotate_backups: EventSlot[[str]]
    on_rotate_backups: EventSlot[[str, list[Backups]]]
    before_run: EventSlot[[str]]
    on_run: EventSlot[[str, JobResult]]
    on_error: EventSlot[[str, str, BaseException]]

    def __init__(self) -> None:
        if not TYPE_CHECKING:
            super().__init__(EVENT_NAMES, event_slot_cls=EventSlot)
        for name in EVENT_NAMES:  # now, since two threads could each create one later
            self.__dict__[name] = EventSlot[Any](name)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"{type(self).__name__} has no '{name}'; the events are {', '.join(EVENT_NAMES)}"
            )

    def __setattr__(self, name: str, value: object) -> None:
        if name in EVENT_NAMES and value is not self.__dict__.get(name):
            raise AttributeError(
                f"{name} cannot be assigned; add a callback with {name} += callback"
            )
        super().__setattr__(name, value)


events = Events()
"""The events of every operation of this process, whatever the profile."""
