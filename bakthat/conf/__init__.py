"""The configuration: profiles in a YAML file, in the environment, or in a mapping."""

from __future__ import annotations

from bakthat.conf.configuration import (
    Configuration,
    LoadedJob,
    load_jobs,
    read_configuration,
)
from bakthat.conf.environment import (
    DRILL_VARIABLE,
    HOOK_VARIABLES,
    default_config,
    default_profile,
    named_profile,
)
from bakthat.conf.files.content import remember_pipes
from bakthat.conf.job import Job, JobSource
from bakthat.conf.loading import (
    LoadedProfile,
    Source,
    destination_without_file,
    load_profile,
    profile_in,
)
from bakthat.conf.machine import machine_name
from bakthat.conf.profile import (
    DEFAULT_CONFIG,
    DEFAULT_DATABASE,
    DEFAULT_PROFILE,
    KEYS,
    PATHS,
    Profile,
)
from bakthat.conf.saving import path_with, read_raw_profile, save_profile
from bakthat.conf.schema import json_schema
from bakthat.hooks import events  # bakthat.conf.events is their public name too

__all__ = [
    "DEFAULT_CONFIG",
    "DEFAULT_DATABASE",
    "DEFAULT_PROFILE",
    "DRILL_VARIABLE",
    "HOOK_VARIABLES",
    "KEYS",
    "PATHS",
    "Configuration",
    "Job",
    "JobSource",
    "LoadedJob",
    "LoadedProfile",
    "Profile",
    "Source",
    "default_config",
    "default_profile",
    "destination_without_file",
    "events",
    "json_schema",
    "load_jobs",
    "load_profile",
    "machine_name",
    "named_profile",
    "path_with",
    "profile_in",
    "read_configuration",
    "read_raw_profile",
    "remember_pipes",
    "save_profile",
]
