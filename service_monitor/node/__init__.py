"""What runs beside a service: its signals, its orphans, the command itself."""
