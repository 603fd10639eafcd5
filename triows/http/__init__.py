"""The front of the one port: reads and checks the head of each request, and routes it."""
