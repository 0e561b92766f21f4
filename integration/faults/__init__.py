"""Faults injected for real: into connections, an etcd cluster, and our commands."""
