"""Fuzzing: any bytes into what reads the bytes of peers, and rules that must hold whatever comes.

`python -m tests.fuzz --help` tells how to run it for long; tests/test_fuzz.py runs it briefly.
"""
