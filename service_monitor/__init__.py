"""Ordered, health-gated startup and honest discovery for clustered services."""
