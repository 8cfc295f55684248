"""Hypothesis strategies for valid services, destinations and tables.

Addresses and ports come from small pools, so that two tables drawn one after the other have rows in common.
"""

# ruff: noqa: S104 - 0.0.0.0 is a mask here
from __future__ import annotations

from hypothesis import strategies as st

from pyminuteman.addresses import IPV4, IPV6
from pyminuteman.ipvs import (
    WEIGHT_MAX,
    Destination,
    ForwardingMethod,
    Persistence,
    Protocol,
    Service,
    ServiceFlags,
    ServiceKey,
    Tunnel,
    TunnelFlags,
    TunnelType,
)

# Of networks whose wrapped differences stand in a circle: 10/8 < 100.64/10 < 192.168/16 < 10/8.
ADDRESSES_V4 = (
    "10.0.0.1",
    "10.0.0.2",
    "10.255.0.9",
    "100.64.0.1",
    "100.127.255.254",
    "192.168.0.1",
    "192.168.255.1",
    "127.0.0.1",
)
ADDRESSES_V6 = ("fd00::1", "fd00::2", "2001:db8::1", "::1", "fd00:0:0:8000::1", "1::")
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh")
CHECKSUMS = [TunnelFlags.NONE, TunnelFlags.CHECKSUM, TunnelFlags.REMOTE_CHECKSUM]
FLAGS = [ServiceFlags(bits) for bits in range(0, 64, 4) if not bits & 2]

keys = st.one_of(
    st.builds(
        ServiceKey,
        st.sampled_from(Protocol),
        st.sampled_from(ADDRESSES_V4 + ADDRESSES_V6),
        st.sampled_from([0, 53, 80, 443, 65535]),
    ),
    st.builds(
        ServiceKey.fwmark,
        st.sampled_from([1, 2, 2**31 - 1, 2**31, 2**32 - 1]),
        st.sampled_from([IPV4, IPV6]),
    ),
)


@st.composite
def services(draw: st.DrawFn, key: st.SearchStrategy[ServiceKey] = keys) -> Service:
    """Any service that can be built, with a scheduler of a usual kernel."""
    where = draw(key)
    persistence = None
    if draw(st.booleans()) or (where.port == 0 and not where.mark):
        masks = ["", "255.255.255.0", "255.0.0.0", "0.0.0.0"] if where.family == IPV4 else ["", "64", "1", "127"]
        persistence = Persistence(draw(st.sampled_from([1, 60, 360, 86400])), draw(st.sampled_from(masks)))
    flags = draw(st.sampled_from(FLAGS))
    if where.protocol not in {Protocol.UDP, None}:
        flags &= ~ServiceFlags.ONE_PACKET
    engine = draw(st.sampled_from(["", "sip"])) if where.protocol == Protocol.UDP and persistence else ""
    return Service(where, draw(st.sampled_from(SCHEDULERS)), flags, persistence, engine)


tunnels = st.one_of(
    st.none(),
    st.just(Tunnel()),
    st.builds(Tunnel, st.just(TunnelType.GUE), st.sampled_from([1, 6080, 65535]), st.sampled_from(CHECKSUMS)),
    st.builds(Tunnel, st.just(TunnelType.GUE), st.just(6080), st.just(TunnelFlags.NONE)),
    st.builds(Tunnel, st.just(TunnelType.GRE), st.just(0), st.sampled_from(CHECKSUMS[:2])),
)
weights = st.sampled_from([0, 1, 2, 100, 65535, 65536, WEIGHT_MAX])


@st.composite
def destinations(draw: st.DrawFn, service: ServiceKey | None = None) -> Destination:
    """Any destination that this service (any service, without one) can have."""
    address = draw(st.sampled_from(ADDRESSES_V4 + ADDRESSES_V6))
    mixed = service is not None and (":" in address) != (service.family == IPV6)
    forward = ForwardingMethod.TUNNEL
    if not mixed:
        forward = draw(st.sampled_from([ForwardingMethod.MASQUERADE, ForwardingMethod.TUNNEL, ForwardingMethod.ROUTE]))
    upper = draw(st.sampled_from([0, 0, 1, 100, 2**31 - 1]))
    return Destination(
        address,
        draw(st.sampled_from([0, 80, 8080])),
        draw(weights),
        forward,
        upper,
        draw(st.sampled_from([0, upper // 2, upper])),
        draw(tunnels) if forward == ForwardingMethod.TUNNEL else None,
    )


@st.composite
def tables(
    draw: st.DrawFn, *, max_services: int = 5, max_destinations: int = 6, key: st.SearchStrategy[ServiceKey] = keys
) -> dict[Service, tuple[Destination, ...]]:
    """A whole table, as ``converge`` takes it."""
    table: dict[Service, tuple[Destination, ...]] = {}
    for service in draw(st.lists(services(key), max_size=max_services, unique_by=lambda service: service.key)):
        rows = st.lists(destinations(service.key), max_size=max_destinations, unique_by=lambda row: row.key)
        table[service] = tuple(draw(rows))
    return table
