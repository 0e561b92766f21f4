"""The rows of the fault matrix that a scene of their own shows best, on real processes.

`--repeat 20` plays each 20 times, each time at other moments, the same in every run.
"""
