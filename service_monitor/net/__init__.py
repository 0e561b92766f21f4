"""Connecting, and what addresses mean."""
