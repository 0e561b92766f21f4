"""Histories of real runs: what the processes did, what the store did, and the verdict.

`recorder` keeps the events of the workers, `observer` and its kinds the store's own
log of changes. `launcher` starts the commands; `rig` lets each `node` live and die as
`lives` has it drawn, while `store_faults` befall the store. `checker` judges by the
`rules`, which ask `relations` and `evidence`; `seeded` proves that it can. `run` is the
command line.
"""
