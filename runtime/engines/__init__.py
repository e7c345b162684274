"""The durable context on runtimes other than our own: the SUT side of each."""
