"""Ordered, health-gated startup and honest discovery for clustered services."""

DISTRIBUTION = "service-monitor-lease"
"""What pip knows it by: `service-monitor` on the Python index is somebody else's."""
