"""The simulated cluster: real commands around fake services; its tests and pictures."""
