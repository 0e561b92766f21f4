"""The stores: a protocol, the way from a URL to one, and a room for each."""
