"""Histories of real runs: what the processes did, what the store did, and the verdict.

`recorder` keeps the events of the workers, `observer` the store's own log of changes,
`launcher` starts the commands, `workload` makes them live and die, `checker` judges,
`seeded` proves that it can, and `run` is the command line.
"""
