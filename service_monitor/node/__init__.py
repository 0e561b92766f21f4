"""What runs beside a service: probes, the watch, the command itself, its signals."""
