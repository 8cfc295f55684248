"""Sources of desired state: each tells, again and again, all of the VIPs that it wants."""
