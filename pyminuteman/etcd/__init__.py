"""etcd, version 3, by the JSON of its gRPC gateway: requests, watches, and mirrors of what is under a prefix.

The names in daily use are in :mod:`pyminuteman.etcd.client` and :mod:`pyminuteman.etcd.mirror`. Needs httpx2, from the extra ``etcd``.
"""
