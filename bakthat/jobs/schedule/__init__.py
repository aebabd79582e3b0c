"""When a job runs: a service and a timer of systemd, or a line of a crontab."""
