"""How the sets are, as metrics for Prometheus."""

from __future__ import annotations

from dataclasses import replace

from bakthat.notify.exposition import HELP
from bakthat.operations.facts import CheckRecord, DrillRecord, Verdict
from bakthat.operations.status.metrics import as_metrics
from bakthat.operations.status.set_status import SetStatus
from bakthat.policy.finding import advice, problem

ETC = SetStatus(
    name="etc",
    host="web1",
    backend="s3",
    source="/etc",
    profile="default",
    last_backup=2000,
    last_success=1000,
    max_age=93600,
    size=5,
    content=9,
    seconds=1.5,
    warnings=0,
    backups=3,
    check=CheckRecord(1500, Verdict.STORED),
    drill=DrillRecord(1600, False, "empty"),
    findings=(problem("age", "too old"), advice("host", "another one")),
)


def samples(*statuses: SetStatus) -> dict[str, str]:
    """Return the values by the names and labels of what is printed."""
    lines = [each for each in as_metrics(statuses).splitlines() if not each.startswith("#")]
    found = dict(each.rsplit(" ", 1) for each in lines)
    assert len(found) == len(lines), "a sample is there twice"
    return found


def test_all_that_is_known_has_a_sample() -> None:
    found = samples(ETC)
    labels = '{set="etc",host="web1",destination="s3",source="/etc"}'
    assert found == {
        f"bakthat_last_success_timestamp_seconds{labels}": "1000",
        f"bakthat_last_backup_timestamp_seconds{labels}": "2000",
        f"bakthat_duration_seconds{labels}": "1.5",
        f"bakthat_stored_bytes{labels}": "5",
        f"bakthat_source_bytes{labels}": "9",
        f"bakthat_warnings{labels}": "0",
        f"bakthat_backups{labels}": "3",
        f"bakthat_max_age_seconds{labels}": "93600",
        f"bakthat_last_check_timestamp_seconds{labels}": "1500",
        f"bakthat_last_drill_timestamp_seconds{labels}": "1600",
        f"bakthat_last_drill_passed{labels}": "0",
        f"bakthat_problems{labels}": "1",
    }
    assert len(found) == len(HELP)


def test_what_is_not_known_has_no_sample() -> None:
    never = SetStatus(name="etc", host="", backend="local", findings=(problem("age", "never"),))
    assert samples(never) == {'bakthat_problems{set="etc",host="",destination="local"}': "1"}


def test_each_metric_has_one_help_and_one_type_before_its_samples() -> None:
    lines = as_metrics([ETC, replace(ETC, host="web2")]).splitlines()
    for name in HELP:
        first = lines.index(f"# HELP {name} {HELP[name]}")
        assert lines[first + 1] == f"# TYPE {name} gauge"
        assert [each.partition("{")[0] for each in lines[first + 2 : first + 4]] == [name, name]


def test_sets_that_differ_only_in_their_container_are_told_apart() -> None:
    found = samples(ETC, replace(ETC, profile="second", size=6), replace(ETC, name="www"))
    sizes = {key: value for key, value in found.items() if key.startswith("bakthat_stored_bytes")}
    of = '{set="etc",host="web1",destination="s3",source="/etc",profile='
    assert sizes == {
        f'bakthat_stored_bytes{of}"default"}}': "5",
        f'bakthat_stored_bytes{of}"second"}}': "6",
        'bakthat_stored_bytes{set="www",host="web1",destination="s3",source="/etc"}': "5",
    }


def test_of_sets_that_nothing_tells_apart_the_worst_is_seen() -> None:
    stopped = replace(ETC, findings=(problem("age", "too old"),), last_success=None)
    # One whose description names another host has the host of its key, as the right one has.
    good = replace(ETC, last_success=1999, last_backup=1999, findings=(advice("host", "another"),))
    other = replace(good, findings=(problem("warnings", "incomplete"),))
    of = '{set="etc",host="web1",destination="s3",source="/etc",profile="default"}'
    for statuses in ((stopped, good, other), (other, good, stopped), (good, stopped)):
        found = samples(*statuses)
        assert found[f"bakthat_problems{of}"] == "1"
        assert found[f"bakthat_last_backup_timestamp_seconds{of}"] == "2000"
        assert f"bakthat_last_success_timestamp_seconds{of}" not in found


def test_hostile_names_cannot_end_a_label_or_a_line() -> None:
    hostile = replace(ETC, name='a"} 5\nbakthat_problems{set="b\\', host="h\x1b[2J", source="")
    for line in as_metrics([hostile]).splitlines():
        assert line.isprintable()
        assert line.startswith(("# ", "bakthat_"))
    inside = 'a\\"} 5\\\\nbakthat_problems{set=\\"b\\\\'
    assert f'bakthat_problems{{set="{inside}",host="h\\\\x1b[2J",destination="s3"}}' in samples(
        hostile
    )
