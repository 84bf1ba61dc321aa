// Nothing is exported yet.
