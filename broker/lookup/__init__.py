"""Hash maps in C, for look-ups that make no Python object."""
