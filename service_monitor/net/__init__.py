"""Connecting: addresses, deadlines, what each address said."""
