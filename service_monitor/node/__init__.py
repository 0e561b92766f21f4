"""What runs beside a service."""
