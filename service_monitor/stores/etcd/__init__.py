"""etcd as the store: v3 over its gateway, and v2."""
