"""Ordered, health-gated startup and honest discovery for clustered services.

There is no public Python API. What stays stable are the commands with their options and
variables, the exit codes, and the records in the store; the modules may change with any
release.
"""

DISTRIBUTION = "service-monitor-lease"
"""What pip knows it by: `service-monitor` on the Python index is somebody else's."""
