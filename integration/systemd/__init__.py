"""The examples for systemd, on machines that boot it."""
