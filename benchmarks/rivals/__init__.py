"""The rivals: what each is, where it is, and how to speak to it.

Most speak plain WebSocket to a server of a few lines in `benchmarks.servers`; those with a
protocol of their own describe its bytes.
"""
