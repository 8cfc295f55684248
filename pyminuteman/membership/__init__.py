"""Who is alive, known everywhere in under half a second: HyParView views, gossiped adjacency, adaptive failure detection."""
