"""Durable execution: the protocol, the minimal runtime, and the same protocol on other engines."""
