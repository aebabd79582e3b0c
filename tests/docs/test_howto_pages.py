"""Each page of docs/how-to, typed from top to bottom by somebody with a clean home directory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.docs.sessions import DOCS, WRITES, Machine, Reader, blocks_of
from tests.support.attacker import Attacker
from tests.support.commandline import PROJECT
from tests.support.databases import (
    mariadb_server,
    output_of,
    postgresql_server,
    redis_server,
)
from tests.support.guarded_account import GuardedAccount
from tests.support.http_listener import http_listener
from tests.support.legacy import Legacy, beefish, tarball
from tests.support.needs import package, program
from tests.support.policy_proxy import policy_proxy
from tests.support.servers import free_port, moto_server, rclone_server, seaweedfs_server, tool
from tests.support.systemd import running_systemd
from tests.support.thaw_proxy import thaw_proxy

PAGES = {path.stem: path for path in sorted((DOCS / "how-to").glob("*.rst"))}
OTHERWISE = {
    "index": "it has no examples",
    "install": "tests/package.py installs in each of its ways",
    "containers": "tests/docs/test_containers.py uses its files",
    "notify": "tests/docs/test_guide.py uses its profiles",
    "helpers": "tests/docs/test_helpers_page.py runs its scripts",
    "fleet": "tests/docs/test_fleet_page.py reads its snippets",
}
"""The pages that are no sessions, and what runs their examples."""
PROGRAMS = ("age", "age-keygen", "jq", "restic", "duplicity", "systemd-analyze")
"""What a page may need beside bakthat, bash and what the tests bring; found by its name there."""
KEYS = {"YOURACCESSKEY": "access_key", "YOURSECRETKEY": "secret_key"}
BUCKET = "my-backups"


class World:
    """The reader of a page, and what the page takes for granted."""

    def __init__(self, reader: Reader, directory: Path, servers: ExitStack) -> None:
        self.reader = reader
        self.directory = directory
        self.servers = servers
        """Ends them after the page."""

    def storage(self, conf: dict[str, Any]) -> None:
        """Put the bucket of a profile in the place of that on the page."""
        self.reader.places |= {place: conf[key] for place, key in KEYS.items()}
        self.reader.places["https://s3.example.com"] = conf["endpoint_url"]

    def amazon(self, conf: dict[str, Any]) -> None:
        """Put it in the place of a bucket at Amazon, whose profiles have no address."""
        self.reader.places |= {place: conf[key] for place, key in KEYS.items()}
        region, address = "region_name: us-east-1", conf["endpoint_url"]
        self.reader.places[region] = f"{region}\n  endpoint_url: {address}"
        self.reader.unseen.append(f" --endpoint-url {address}")

    def write(self, place: str, text: str, machine: str = "") -> Path:
        """Write a file."""
        path = self.reader.machine(machine).path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


Check = Callable[[], None]
PREPARATIONS: dict[str, Callable[[World], Check | None]] = {}
"""What makes what a page takes for granted, by its name; it may return what to check at the end."""


def page(prepare: Callable[[World], Check | None]) -> Callable[[World], Check | None]:
    """Register a preparation under its name, which is the page's with underscores."""
    PREPARATIONS[prepare.__name__.replace("_", "-")] = prepare
    return prepare


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    reader = Reader(tmp_path)
    reader.otherwise |= {
        "python3 -m venv": make_environment,
        "/opt/bakthat/bin/pip install": install,
        "systemctl": check_units,
    }
    with ExitStack() as servers:
        yield World(reader, tmp_path, servers)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PAGES.keys() - OTHERWISE.keys()))
def test_every_session_of_the_page_is_what_happens(world: World, name: str) -> None:
    typed = PAGES[name].read_text().replace("systemctl", "systemd-analyze")
    for each in PROGRAMS:
        if re.search(rf"^ +.*?[$|(] ?{each} ", typed, re.M):
            program(each)
    prepare = PREPARATIONS.get(name)
    check = prepare(world) if prepare is not None else None
    blocks = blocks_of(PAGES[name])
    unknown = [each.line for each in blocks if each.language != "console" and not each.caption]
    assert unknown == [], "nothing runs these blocks"
    try:
        world.reader.follow(blocks)
        run_cron(world.reader.machine())
    finally:
        if WRITES:
            world.reader.write(PAGES[name])
    if check is not None:
        check()


# What cannot run here.


def make_environment(machine: Machine, command: str) -> None:
    """Make the directory of a virtual environment."""
    Path(command.split()[-1], "bin").mkdir(parents=True)


def install(machine: Machine, command: str) -> None:
    """Put this clone's programs where pip puts them; tests/package.py installs them by pip."""
    assert command.split()[1:] == ["install", "--quiet", "."]
    directory = Path(command.split()[0]).parent
    for name, ours in {"bakthat": "bakthat", "python": "python3"}.items():
        (directory / name).write_text(f'#!/bin/sh\nexec {machine.program(ours)} "$@"\n')
        (directory / name).chmod(0o755)


def install_in_opt(world: World) -> None:
    """Do what the page on servers does first."""
    machine = world.reader.machine()
    make_environment(machine, world.reader.here("python3 -m venv /opt/bakthat", machine))
    install(machine, world.reader.here("/opt/bakthat/bin/pip install --quiet .", machine))


def check_units(machine: Machine, command: str) -> None:
    """Let systemd read the units that the page has written, and run what they start."""
    is_users = "--user" in command
    place = "~/.config/systemd/user" if is_users else "/etc/systemd/system"
    units, name = machine.path(place), command.split()[-1]
    with tempfile.TemporaryDirectory(prefix="run") as run:  # the paths of sockets are short
        done = subprocess.run(
            [program("systemd-analyze"), *(["--user"] if is_users else []), "verify", units / name],
            env={**machine.environment, "XDG_RUNTIME_DIR": run},
            capture_output=True,
            text=True,
        )
    assert (done.returncode, done.stderr) == (0, "")
    if "enable" in command:
        assert "[Install]" in (units / name).read_text()
    service = (units / name).with_suffix(".service").read_text()
    for started in re.findall(r"^ExecStart=(.*)$", service, re.M):
        run_without_environment(machine, started.replace("%h", str(machine.home)), "/usr/bin:/bin")


def run_cron(machine: Machine) -> None:
    """Run each job of the tables that the page has written."""
    for table in machine.path("/etc/cron.d").glob("*"):
        variables: dict[str, str] = {}
        for line in table.read_text().splitlines():
            name, equals, value = line.partition("=")
            if equals and name.isidentifier():
                variables[name] = value
                continue
            job = re.fullmatch(r"((?:[\d*/,-]+ ){5})root (.+)", line)
            assert job, f"cron does not understand {line}"
            run_without_environment(machine, job[2], variables["PATH"])


def run_without_environment(machine: Machine, command: str, path: str) -> None:
    """Run *command* as cron and systemd do: no terminal, no variables but HOME and PATH."""
    path = f"{machine.root}/usr/local/bin:{path}"
    done = subprocess.run(
        ["env", "-i", f"HOME={machine.home}", f"PATH={path}", "/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        start_new_session=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# What the pages take for granted.


def write_site(world: World, machine: str = "") -> None:
    world.write("/srv/www/index.html", "<h1>Hello</h1>\n", machine)
    world.write("/srv/www/style.css", "h1 { color: teal }\n", machine)


def rclone(world: World, access_key: str = "YOURACCESSKEY") -> dict[str, Any]:
    """Start a storage that takes the keys of the page; return a profile for a bucket in it."""
    home = world.directory / "storage"
    home.mkdir()
    server = world.servers.enter_context(rclone_server(home, access_key, "YOURSECRETKEY"))
    conf = server.conf(s3_bucket=BUCKET)
    world.storage(conf)
    return conf


@page
def encryption(world: World) -> None:
    rclone(world)
    write_site(world)


@page
def configure(world: World) -> None:
    conf = rclone(world, "backup-of-you")
    world.reader.secrets["AWS Secret Key:"] = conf["secret_key"]
    world.write("~/secret-key", conf["secret_key"])


@page
def first_backup(world: World) -> None:
    world.reader.secrets["AWS Secret Key:"] = rclone(world)["secret_key"]
    world.reader.otherwise["pipx install"] = install_by_pipx
    for question in ("Password (blank to disable encryption):", "Password confirmation:",
                     "Password:", "Enter passphrase:"):  # fmt: skip
        world.reader.secrets[question] = "correct horse battery staple"


def install_by_pipx(machine: Machine, command: str) -> None:
    """Do nothing: the program is there; tests/package.py installs it by pipx."""
    assert command == "pipx install ."


@page
def server(world: World) -> Check:
    rclone(world)
    write_site(world)
    world.write("/etc/hosts", "127.0.0.1 localhost\n")
    listener = world.servers.enter_context(http_listener())
    world.reader.places["https://hc-ping.com/your-uuid-here"] = f"{listener.url}/your-uuid-here"

    def check() -> None:
        assert {"/your-uuid-here/start", "/your-uuid-here"} <= set(listener.paths())

    return check


@page
def jobs(world: World) -> None:
    """Start a systemd, which runs what the page installs."""
    rclone(world)
    write_site(world)
    world.write("/srv/photos/tea.jpg", "a photo\n")
    world.write("/var/backups/README", "what failed is here\n")
    lib = world.reader.machine().path("/var/lib")
    lib.mkdir(parents=True, exist_ok=True)
    world.reader.places["sqlite:////var/lib"] = f"sqlite:///{lib}"
    program("sqlite3")
    output_of("sqlite3", str(lib / "shop.db"), "CREATE TABLE orders (id int PRIMARY KEY)")
    systemd = world.servers.enter_context(running_systemd())
    world.reader.machine().prefix = systemd.enter
    del world.reader.otherwise["systemctl"]
    installed = Path(sys.executable).with_name("bakthat")
    world.reader.places["/usr/local/bin/bakthat"] = str(installed)
    settings = systemd.units / "bakthat-.service.d"
    settings.mkdir()
    (settings / "clone.conf").write_text(f"[Service]\nEnvironment=PYTHONPATH={PROJECT}\n")


@page
def monitoring(world: World) -> None:
    rclone(world)
    write_site(world)
    world.write("/etc/hosts", "127.0.0.1 localhost\n")
    machine = world.reader.machine()
    machine.path("/usr/local/bin/bakthat").symlink_to(machine.program("bakthat"))
    machine.path("/var/lib/node-exporter").mkdir(parents=True)


DOCKER = """#!/bin/sh
# Stands in for docker: exec -i -e VARIABLE db PROGRAM. Inside is only the variable passed on.
[ "$1 $2 $3 $5" = "exec -i -e db" ] || exit 64
passed=$4 && shift 5
for each in PGPASSWORD MYSQL_PWD REDISCLI_AUTH; do
    [ "$each" = "$passed" ] || unset "$each"
done
exec "$@"
"""


@page
def databases(world: World) -> Check:
    rclone(world)
    machine = world.reader.machine()
    machine.path("/usr/local/bin/bakthat").symlink_to(machine.program("bakthat"))
    world.write("/usr/local/bin/docker", DOCKER).chmod(0o755)
    program("sqlite3")
    package("redis")
    postgresql = world.servers.enter_context(postgresql_server("mypassword"))
    homes = [world.directory / name for name in ("mariadb", "redis")]
    for home in homes:
        home.mkdir()
    port = free_port()
    mariadb = world.servers.enter_context(mariadb_server(homes[0], port=port))
    redis_port = world.servers.enter_context(redis_server(homes[1], password="mypassword"))
    lib = machine.path("/var/lib")
    world.reader.places |= {
        "postgresql://postgres@localhost": f"postgresql://postgres@127.0.0.1:{postgresql['PGPORT']}",
        "mariadb://root@localhost": f"mariadb://root@127.0.0.1:{port}",
        "redis://localhost": f"redis://127.0.0.1:{redis_port}",
        "redis-localhost": f"redis-127.0.0.1-{redis_port}",
        "sqlite:////var/lib": f"sqlite:///{lib}",
    }
    psql = ["psql", "-h", postgresql["PGHOST"], "-p", postgresql["PGPORT"], "-U", "postgres"]
    orders = "CREATE TABLE orders (id int PRIMARY KEY, what text)"
    for name in ("shop", "blog"):
        output_of(*psql, "-c", f"CREATE DATABASE {name}")
        output_of(*psql, "-d", name, "-c", orders)
        output_of(*psql, "-d", name, "-c", "INSERT INTO orders VALUES (1, 'tea'), (2, 'milk')")
    redis = ["redis-cli", "-p", str(redis_port), "-a", "mypassword", "--no-auth-warning"]
    output_of(*redis, "SET", "order", "tea")
    sqlite = ["sqlite3", str(lib / "app.db")]
    output_of(*sqlite, orders)
    several = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)"
    output_of(*sqlite, f"{several} INSERT INTO orders SELECT i, 'tea' FROM n")

    def check() -> None:
        rows = "SELECT * FROM orders ORDER BY id"
        for name in ("shop_copy", "blog_copy"):
            assert output_of(*psql, "-d", name, "-Atc", rows) == "1|tea\n2|milk\n"
        hexadecimal = "SELECT id, HEX(what), HEX(photo) FROM orders ORDER BY id"
        both = [
            output_of(*mariadb, "-D", each, "-e", hexadecimal) for each in ("shop", "shop_copy")
        ]
        assert both[0] == both[1] != ""
        assert output_of("sqlite3", str(lib / "copy.db"), "SELECT count(*) FROM orders") == "2000\n"
        assert output_of(*redis, "GET", "order") == "tea\n"
        left = output_of(*psql, "-Atc", "SELECT datname FROM pg_database")
        left += output_of(*mariadb, "-e", "SHOW DATABASES")
        assert "bakthat" not in left

    return check


@page
def streams(world: World) -> Check:
    program("age")
    package("sh")

    def check() -> None:
        machine = world.reader.machine()
        stored = sorted(each.name for each in machine.path("/mnt/backups").glob("*.gz.age"))
        sets = [re.sub(r"\.\d{14}\.gz\.age$", "", each) for each in stored]
        assert sets == ["listing.txt"] + ["numbers.txt"] * 4 + ["piped.sql"] * 2 + ["report.csv"]

    return check


@page
def laptop(world: World) -> None:
    world.write("~/Documents/notes.txt", "call mum\n")
    world.write("~/Downloads/linux.iso", "a large file\n")
    world.write("~/.cache/thumbnails/1", "a small file\n")
    machine = world.reader.machine()
    disk = machine.path("/media/you/disk")
    disk.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "disk", disk], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    world.servers.callback(lambda: subprocess.run(["umount", "-q", disk], check=False))
    (machine.home / ".local" / "bin").mkdir(parents=True)
    (machine.home / ".local" / "bin" / "bakthat").symlink_to(machine.program("bakthat"))


@page
def many_hosts(world: World) -> Check:
    account = guarded_account(world, "web1", "web2")
    for host in ("web1", "web2"):
        write_site(world, host)

    def check() -> None:
        root, web2 = account.client(account.root), account.client(account.keys_of("web2"))
        listed = root.list_objects_v2(Bucket=BUCKET, Prefix="web1/")["Contents"]
        stored = {"Bucket": BUCKET, "Key": listed[0]["Key"]}
        for forbidden in (web2.get_object, web2.delete_object, web2.put_object):
            with pytest.raises(ClientError, match="AccessDenied"):
                forbidden(**stored)

    return check


@page
def immutability(world: World) -> None:
    def destroy(machine: Machine, typed: str) -> None:
        """Delete all objects of the bucket with the keys of the keeper."""
        bucket = re.fullmatch(r"aws s3 rm s3://([\w-]+) --recursive", typed)
        assert bucket
        conf = {"endpoint_url": account.endpoint_url}
        clock = Attacker({**conf, **account.root, "s3_bucket": BUCKET}).now()
        before = datetime.fromtimestamp(clock, UTC)
        world.reader.places["2026-11-28 12:00:00"] = f"{before:%Y-%m-%d %H:%M:%S}"
        thief = Attacker({**conf, **account.keys_of("keeper"), "s3_bucket": bucket[1]})
        thief.delete(*thief.stored())
        assert thief.stored() == []

    world.reader.otherwise["aws s3 rm"] = destroy
    account = guarded_account(world, "web1", "keeper", "reader")
    write_site(world, "web1")


def guarded_account(world: World, *users: str) -> GuardedAccount:
    """Start a storage that enforces policies, in the place of AWS, where *users* will be made."""
    home = world.directory / "seaweedfs"
    home.mkdir()
    server = world.servers.enter_context(seaweedfs_server(home))
    proxy = world.servers.enter_context(policy_proxy(server.endpoint_url))
    account = GuardedAccount(server, proxy)
    world.amazon({**account.root, "endpoint_url": proxy.endpoint_url})
    world.reader.unseen.append(f" at {proxy.endpoint_url}")

    def call(machine: Machine, typed: str) -> None:
        account.call(typed, machine.path)

    world.reader.otherwise |= {"aws": call, "for user in": call}
    for user in users:
        keys = account.keys_of(user)
        for place, key in keys.items():
            world.reader.places[f"{user.upper()}{place.upper().replace('_', '')}"] = key
        world.reader.places[f"user/{user}"] = f"user/{keys['access_key']}"
    return account


@page
def cold_storage(world: World) -> None:
    home = world.directory / "moto"
    home.mkdir()
    server = world.servers.enter_context(moto_server(home))
    proxy = world.servers.enter_context(thaw_proxy(server.endpoint_url))
    world.amazon({**server.conf(), "endpoint_url": proxy.endpoint_url})
    world.write("~/photos/2025/beach.jpg", "the sea\n")
    world.write("~/photos/2026/snow.jpg", "the snow\n")

    def advance(machine: Machine, command: str) -> None:
        assert command == "sleep 12h"
        proxy.advance(hours=12)

    world.reader.otherwise["sleep"] = advance


@page
def disaster(world: World) -> None:
    conf = rclone(world)
    machine = world.reader.machine("web1")
    write_site(world, "web1")
    world.write("/etc/hostname", "web1\n", "web1")
    keygen = [program("age-keygen"), "-o", str(world.reader.machine().path("~/key.txt"))]
    subprocess.run(keygen, check=True, capture_output=True)
    public = output_of(program("age-keygen"), "-y", keygen[-1]).strip()
    profile = {**conf, "recipients": [public], "host": "web1"}
    world.write("~/.bakthat.yml", json.dumps({"default": profile}), "web1").chmod(0o600)
    for place in ("/etc", "/srv/www"):
        machine.run(f"bakthat --quiet backup {machine.path(place)}")
        assert machine.status == 0
    (world.reader.machine().program("bakthat").with_name("rclone")).symlink_to(tool("rclone"))


@page
def from_060(world: World) -> None:
    home = world.directory / "moto"
    home.mkdir()
    conf = world.servers.enter_context(moto_server(home)).conf(s3_bucket=BUCKET)
    world.amazon(conf)
    machine = world.reader.machine()
    legacy = Legacy(conf, machine.path("~/.bakthat.sqlite"))
    for day in (1, 2):
        name = f"mydir.2013060{day}191055.tgz.enc"
        body = beefish(tarball("mydir", {"file.txt": b"hello\n"}))
        metadata = {"is_enc": True, "client": "web1"}
        legacy.store(name, "mydir", body, metadata, 1370113855 + day * 86400)
    profile = {key: conf[key] for key in ("access_key", "secret_key", "s3_bucket")}
    profile |= {"endpoint_url": conf["endpoint_url"], "host": "web1", "default_destination": "s3"}
    lines = "".join(f"  {key}: {value}\n" for key, value in profile.items())
    world.write("~/.bakthat.yml", f"default:\n{lines}")
    world.write("~/mydir/file.txt", "hello\n")


@page
def from_restic(world: World) -> None:
    write_site(world)
    machine = world.reader.machine()
    restic = [program("restic"), "--quiet", "--repo", str(machine.path("/mnt/backups/restic"))]
    environment = {**machine.environment, "RESTIC_PASSWORD": "mypassword"}
    source = machine.path("/srv/www")
    for arguments in (
        ["init"],
        ["backup", "--time", "2026-11-20 03:00:00", source],
        ["backup", "--time", "2026-11-21 03:00:00", source],
    ):
        subprocess.run([*restic, *arguments], env=environment, check=True, capture_output=True)
    # A snapshot has the whole path.
    for place in ("old/srv", "from-restic/srv"):
        world.reader.places[place] = place.replace("/srv", str(source.parent))


@page
def from_duplicity(world: World) -> None:
    write_site(world)
    machine = world.reader.machine()
    world.reader.places["file:///mnt"] = f"file://{machine.path('/mnt')}"
    # The path of gpg's socket has to be short.
    gpg = world.servers.enter_context(tempfile.TemporaryDirectory(prefix="gpg"))
    machine.environment["GNUPGHOME"] = gpg
    subprocess.run(
        [program("duplicity"), "full", "--current-time", "1793502000", machine.path("/srv/www"),
         f"file://{machine.path('/mnt/backups/duplicity')}"],
        env={**machine.environment, "PASSPHRASE": "mypassword", "TZ": "UTC"},
        check=True, capture_output=True,
    )  # fmt: skip


@page
def from_tar(world: World) -> None:
    write_site(world)
    backups, root = world.reader.machine().path("/mnt/backups"), world.reader.machine().path("/srv")
    backups.mkdir(exist_ok=True)
    for day in ("2026-11-20", "2026-11-21"):
        output_of("tar", "-C", str(root), "-czf", str(backups / f"www-{day}.tar.gz"), "www")
