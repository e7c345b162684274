"""Which faults meet which workflows, and how often."""
