"""Connecting: what addresses mean, deadlines, what each address said."""
