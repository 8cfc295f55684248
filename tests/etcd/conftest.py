"""An etcd for this directory."""

from __future__ import annotations

from tests.support.etcd import client, own_etcd, prefix, shared_etcd

__all__ = ["client", "own_etcd", "prefix", "shared_etcd"]
