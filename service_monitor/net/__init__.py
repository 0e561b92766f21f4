"""Connecting: addresses, HTTP, TLS, one deadline for a blocking call, the stop."""
