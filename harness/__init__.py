"""Runs trials and judges them."""
