"""What can be wrong in a workflow or tool file, as far as its text shows: one pure function per part."""
