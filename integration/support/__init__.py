"""What both suites share: servers, faults, and ways to run the commands."""
