"""A network and a service that fail at each request that a command makes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import yaml

from tests.reliability.world import SET, World
from tests.support.fault_proxy import Cut, Fault, LoseAnswer, Reset, Stall, fault_proxy, refusal

FAULTS: dict[str, Fault] = {
    "reset": Reset(),
    "lost answer": LoseAnswer(),
    "SlowDown": refusal(503, "SlowDown"),
    "InternalError": refusal(500, "InternalError"),
    "AccessDenied": refusal(403, "AccessDenied"),
    "ExpiredToken": refusal(400, "ExpiredToken"),
    "cut": Cut(10),
    "silence": Stall(),
}


class _Proxy:
    """A proxy in a process of its own: this one forks, and must have no threads."""

    def __init__(self, pid: int, answers: int, stop: int) -> None:
        self._pid, self._answers, self._stop = pid, answers, stop
        self.endpoint_url = self._line()
        self.requests = 0

    def end(self) -> None:
        os.close(self._stop)
        self.requests = int(self._line())
        os.close(self._answers)
        os.waitpid(self._pid, 0)

    def _line(self) -> str:
        return os.read(self._answers, 200).decode()


@contextmanager
def _proxied(upstream: str, number: int, fault: Fault | None) -> Iterator[_Proxy]:
    answers, answer = os.pipe()
    stopped, stop = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(stop)
            with fault_proxy(upstream) as proxy:
                if fault is not None:
                    proxy.on("*", "/", fault, after=number - 1)
                os.write(answer, proxy.endpoint_url.encode())
                os.read(stopped, 1)
                os.write(answer, str(len(proxy.requests)).encode())
        finally:
            os._exit(0)
    os.close(answer)
    os.close(stopped)
    proxy_ = _Proxy(pid, answers, stop)
    try:
        yield proxy_
    finally:
        proxy_.end()


def fail(world: World, *, every: int, offset: int = 0) -> int:
    """Fail each request of a backup, a deletion, a sync and a restore, and all that follow it.

    Or only one of *every*. Returns how many commands met a fault.
    """
    faults = 0
    for name in ("backup", "delete", "sync", "restore"):
        world.back_up()
        total = _run(world, name, 0, None)[0]
        cases = [(number, fault) for number in range(1, total + 1) for fault in FAULTS]
        for number, fault in cases[offset::every]:
            faults += _fail_once(world, name, number, fault)
    return faults


def _run(world: World, name: str, number: int, fault: Fault | None) -> tuple[int, int, str]:
    """Return how many requests a command made, its exit code and its output."""
    out = world.home.parent / "out"
    command = {
        "backup": ("backup", str(world.source)),
        "delete": ("delete", SET),
        "sync": ("sync",),
        "restore": ("restore", SET, "-o", str(out)),
    }[name]
    with _proxied(world.conf["endpoint_url"], number, fault) as proxy:
        conf = {**world.conf, "endpoint_url": proxy.endpoint_url}
        if isinstance(fault, Stall):
            conf["timeout"] = 0.3
        config = world.home / "proxied.yml"
        config.write_text(yaml.safe_dump({"default": conf}))
        config.chmod(0o600)
        ended = world.run(*command, "-c", str(config))
    appeared = out.exists() and bool(os.listdir(out))
    shutil.rmtree(out, ignore_errors=True)
    if name == "restore" and appeared != (ended.result == 0):
        world.problems.append(f"restore exits with {ended.result}; appeared: {appeared}")
    return proxy.requests, ended.result, ended.output


def _fail_once(world: World, name: str, number: int, fault: str) -> int:
    if len(world.keys()) < 2:
        world.back_up()
    stored = world.keys()
    must_remain = stored - {max(stored)} if name == "delete" else stored
    _, code, output = _run(world, name, number, FAULTS[fault])
    what = f"{name} with {fault} from request {number}"
    errors = output.count("bakthat: error: ")
    if code not in (0, 1) or "Traceback" in output or "unexpected" in output or errors != code:
        world.problems.append(f"{what}: exit {code}, and it says {output}")
    world.examine(must_remain, what)
    if len(world.keys()) > 4:
        world.tidy(2)
    return 1
