"""Plain data, which is what TOML and JSON hold: from text to typed values, with errors that name file, line and key."""
