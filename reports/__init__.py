"""Turns results into scorecards and exports; never judges."""
