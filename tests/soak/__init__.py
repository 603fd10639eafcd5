"""The soak: a server in a process of its own under mixed load with faults, watched every second."""
