"""What each command of ``kintsugi`` does, one module for a few that belong together."""
