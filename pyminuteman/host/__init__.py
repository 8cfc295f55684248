"""What a host needs besides IPVS: VIP addresses, packet filter rules, kernel settings. Each is looked at, put right, and taken back.

``setup.HostSetup`` puts the steps together; ``findings.Finding`` is what a look finds. Importing this loads neither libnl nor any tool.
"""
