"""Key management services: how a system key is wrapped by a master key."""
