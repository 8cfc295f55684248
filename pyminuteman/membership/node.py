"""One node of the cluster, without the world: composes views, failure detector, adjacency, routing and multicast."""
