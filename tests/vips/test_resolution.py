"""One VIP as the kernel should hold it: who takes connections, and why the others do not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import IPV4, IPV6
from pyminuteman.ipvs import Destination, Service
from pyminuteman.ipvs.destination import ForwardingMethod
from pyminuteman.ipvs.service import Persistence, ServiceKey
from pyminuteman.vips.address_book import AddressBook
from pyminuteman.vips.allocation import AddressRange
from pyminuteman.vips.model import VIP, Backend, BackendKey, InvalidVIPError, VIPKey, VIPName, VIPSettings
from pyminuteman.vips.resolution import Adjustments, Conditions, Reach, Reason, Resolution, resolve

WEB = VIPKey.tcp("11.0.0.1", 80)
FOO = VIPKey.tcp(VIPName("/foo", "marathon"), 80)
A, B, C = (Backend(f"10.0.0.{number}", 8080, agent=f"10.0.0.{number}") for number in (1, 2, 3))
A6 = Backend("fd00::1", 8080, agent="10.0.0.1")


def address_book() -> AddressBook:
    book = AddressBook()
    book.add(VIPName("/foo", "marathon"))
    return book


def conditions(
    reach: Mapping[str, Reach] | None = None, *, own: str = "", adjustments: Adjustments | None = None
) -> Conditions:
    known = reach or {}
    return Conditions(lambda agent: known.get(agent, Reach.UP), frozenset({own} - {""}), adjustments or Adjustments())


def resolved(
    *backends: Backend,
    key: VIPKey = WEB,
    settings: VIPSettings | None = None,
    reach: Mapping[str, Reach] | None = None,
    own: str = "",
    adjustments: Adjustments | None = None,
) -> Resolution:
    vip = VIP(key, backends, settings or VIPSettings())
    return resolve(vip, address_book(), conditions(reach, own=own, adjustments=adjustments))


def weights(resolution: Resolution) -> dict[str, int]:
    return {str(row): row.weight for _, rows in resolution.services for row in rows}


def reasons(resolution: Resolution) -> dict[str, Reason]:
    return {str(one.backend): one.reason for one in resolution.exclusions}


# -- the plain case ----------------------------------------------------------------------------------------------------


def test_all_is_well_and_nothing_is_left_out() -> None:
    result = resolved(A, B, settings=VIPSettings("rr"))
    service = Service.tcp("11.0.0.1", 80, scheduler="rr")
    assert result.services == ((service, (Destination("10.0.0.1", 8080), Destination("10.0.0.2", 8080))),)
    assert (result.exclusions, result.failed_open) == ((), ())


def test_settings_go_into_the_service_and_its_destinations() -> None:
    settings = VIPSettings("sh", persistence=Persistence(60), forward=ForwardingMethod.ROUTE)
    ((service, (row,)),) = resolved(A, settings=settings).services
    assert (service.scheduler, service.persistence, row.forward) == ("sh", Persistence(60), ForwardingMethod.ROUTE)


def test_an_address_without_backends_refuses_connections_rather_than_leading_to_the_hosts_own() -> None:
    ((service, rows),) = resolved().services
    assert (service.key, rows) == (ServiceKey.tcp("11.0.0.1", 80), ())


# -- families and names ------------------------------------------------------------------------------------------------


def test_an_address_takes_backends_of_its_family_only() -> None:
    assert weights(resolved(A, A6)) == {"10.0.0.1:8080": 1}
    assert reasons(resolved(A, A6)) == {"[fd00::1]:8080": Reason.OTHER_FAMILY}
    key = VIPKey.tcp("fd01:d::1", 80)
    assert weights(resolved(A, A6, key=key)) == {"[fd00::1]:8080": 1}
    assert reasons(resolved(A, A6, key=key)) == {"10.0.0.1:8080": Reason.OTHER_FAMILY}


def test_a_name_becomes_a_service_of_each_family_that_has_backends() -> None:
    book = address_book()
    both, four, six, none = (resolved(*backends, key=FOO) for backends in ((A, A6), (A,), (A6,), ()))
    addresses = [book.address(VIPName("/foo", "marathon"), family) for family in (IPV4, IPV6)]
    assert [service.key.address for service, _ in both.services] == addresses
    assert [service.key.address for service, _ in four.services] == addresses[:1]
    assert [service.key.address for service, _ in six.services] == addresses[1:]
    assert none.services == ()


def test_a_name_without_an_address_leaves_its_backends_out_and_says_why() -> None:
    vip = VIP(FOO, (A, A6))
    result = resolve(vip, AddressBook([AddressRange.parse("11.0.0.0", "11.0.0.9")]), conditions())
    assert result.services == ()
    assert reasons(result) == {"10.0.0.1:8080": Reason.NO_ADDRESS, "[fd00::1]:8080": Reason.NO_ADDRESS}
    assert str(result.exclusions[0]) == (
        "tcp:///foo@marathon:80: 10.0.0.1:8080 is left out: the VIP's name has no address in its family "
        "(/foo@marathon is not in the address book)"
    )


def test_settings_that_only_one_family_can_have_cost_the_other_its_service() -> None:
    result = resolved(A, A6, key=FOO, settings=VIPSettings(persistence=Persistence(60, "255.255.255.0")))
    assert weights(result) == {"10.0.0.1:8080": 1}
    assert reasons(result) == {"[fd00::1]:8080": Reason.SETTINGS}
    assert "netmask" in result.exclusions[0].detail


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1"])  # noqa: S104
def test_a_backend_that_the_kernel_does_not_take_is_left_out(address: str) -> None:
    result = resolved(A, Backend(address, 80))
    assert weights(result) == {"10.0.0.1:8080": 1}
    assert reasons(result) == {f"{address}:80": Reason.INVALID}


def test_reasons_are_in_the_order_of_backends_whatever_they_are() -> None:
    result = resolved(A, B, Backend("224.0.0.1", 80), reach={"10.0.0.1": Reach.DOWN})
    assert [(one.backend.address, one.reason) for one in result.exclusions] == [
        ("10.0.0.1", Reason.DOWN),
        ("224.0.0.1", Reason.INVALID),
    ]


# -- reach -------------------------------------------------------------------------------------------------------------


def test_a_backend_whose_host_is_down_is_left_out() -> None:
    result = resolved(A, B, reach={"10.0.0.2": Reach.DOWN})
    assert weights(result) == {"10.0.0.1:8080": 1}
    assert str(result.exclusions[0]) == ("tcp://11.0.0.1:80: 10.0.0.2:8080 is left out: its host is out of reach (10.0.0.2)")


def test_a_backend_whose_host_has_fallen_silent_keeps_its_connections() -> None:
    result = resolved(A, B, reach={"10.0.0.2": Reach.SUSPECT})
    assert weights(result) == {"10.0.0.1:8080": 1, "10.0.0.2:8080": 0}
    assert str(result.exclusions[0]).startswith(
        "tcp://11.0.0.1:80: 10.0.0.2:8080 takes no new connections: its host has fallen"
    )
    assert result.failed_open == ()


def test_where_no_host_is_in_reach_all_are_kept_and_it_is_said() -> None:
    result = resolved(A, B, reach={"10.0.0.1": Reach.DOWN, "10.0.0.2": Reach.DOWN})
    assert weights(result) == {"10.0.0.1:8080": 1, "10.0.0.2:8080": 1}
    assert result.exclusions == ()
    assert [str(one) for one in result.failed_open] == [
        "tcp://11.0.0.1:80 (tcp 11.0.0.1:80) fails open: of every backend it would have to be said that its host is out of reach"
    ]


def test_of_hosts_that_are_all_in_doubt_those_are_kept_that_are_likeliest_to_be_there() -> None:
    result = resolved(A, B, reach={"10.0.0.1": Reach.SUSPECT, "10.0.0.2": Reach.DOWN})
    assert weights(result) == {"10.0.0.1:8080": 1}
    assert reasons(result) == {"10.0.0.2:8080": Reason.DOWN}
    assert [one.reason for one in result.failed_open] == [Reason.SUSPECT]


def test_each_family_of_a_name_fails_open_by_itself() -> None:
    result = resolved(A, Backend("fd00::2", 80, agent="10.0.0.2"), key=FOO, reach={"10.0.0.2": Reach.DOWN})
    assert weights(result) == {"10.0.0.1:8080": 1, "[fd00::2]:80": 1}
    assert [one.service.family for one in result.failed_open] == [IPV6]


def test_a_backend_on_no_member_is_held_in_reach() -> None:
    result = resolved(Backend("192.0.2.1", 80), A, reach={"10.0.0.1": Reach.DOWN})
    assert weights(result) == {"192.0.2.1:80": 1}


def test_a_backend_of_our_own_is_in_reach_whatever_is_said() -> None:
    assert weights(resolved(A, B, own="10.0.0.1", reach={"10.0.0.1": Reach.DOWN, "10.0.0.2": Reach.DOWN})) == {
        "10.0.0.1:8080": 1
    }


# -- weights -----------------------------------------------------------------------------------------------------------


def test_a_weight_of_0_is_its_sources_wish() -> None:
    result = resolved(A, Backend("10.0.0.2", 8080, weight=0))
    assert weights(result) == {"10.0.0.1:8080": 1, "10.0.0.2:8080": 0}
    assert reasons(result) == {"10.0.0.2:8080": Reason.SOURCE}


def test_an_operators_weight_beats_the_sources_and_the_one_for_this_vip_beats_that_for_all() -> None:
    adjustments = Adjustments(weights={(None, A.key): 5, (WEB, A.key): 7, (None, B.key): 0})
    result = resolved(A, B, C, adjustments=adjustments)
    assert weights(result) == {"10.0.0.1:8080": 7, "10.0.0.2:8080": 0, "10.0.0.3:8080": 1}
    assert reasons(result) == {"10.0.0.2:8080": Reason.OPERATOR}


@pytest.mark.parametrize(
    "adjustments",
    [
        Adjustments(drained=frozenset({(WEB, B.key)})),
        Adjustments(drained=frozenset({(None, B.key)}), weights={(WEB, B.key): 9}),
        Adjustments(drained_agents=frozenset({"10.0.0.2"})),
    ],
)
def test_a_drained_backend_keeps_its_connections(adjustments: Adjustments) -> None:
    result = resolved(A, B, adjustments=adjustments)
    assert weights(result) == {"10.0.0.1:8080": 1, "10.0.0.2:8080": 0}
    assert reasons(result) == {"10.0.0.2:8080": Reason.DRAINED}


def test_a_drain_of_one_vip_is_none_of_another() -> None:
    adjustments = Adjustments(drained=frozenset({(VIPKey.tcp("11.0.0.2", 80), B.key)}))
    assert weights(resolved(A, B, adjustments=adjustments))["10.0.0.2:8080"] == 1


@pytest.mark.parametrize("target", [(WEB, B.key), (None, B.key)])
def test_a_backend_that_fails_its_health_check_takes_no_new_connections(target: tuple[VIPKey | None, BackendKey]) -> None:
    result = resolved(A, B, adjustments=Adjustments(unhealthy=frozenset({target})))
    assert weights(result) == {"10.0.0.1:8080": 1, "10.0.0.2:8080": 0}
    assert reasons(result) == {"10.0.0.2:8080": Reason.UNHEALTHY}


def test_where_none_in_reach_is_healthy_all_of_them_are_kept() -> None:
    unhealthy = Adjustments(unhealthy=frozenset({(None, A.key), (None, B.key)}))
    result = resolved(A, B, C, reach={"10.0.0.3": Reach.DOWN}, adjustments=unhealthy)
    assert weights(result) == {"10.0.0.1:8080": 1, "10.0.0.2:8080": 1}
    assert [one.reason for one in result.failed_open] == [Reason.UNHEALTHY]


def test_what_is_drained_stays_drained_when_the_rest_is_out_of_reach() -> None:
    result = resolved(A, B, reach={"10.0.0.2": Reach.DOWN}, adjustments=Adjustments(drained=frozenset({(None, A.key)})))
    assert weights(result) == {"10.0.0.1:8080": 0, "10.0.0.2:8080": 1}
    assert [one.reason for one in result.failed_open] == [Reason.DOWN]


def test_where_all_are_drained_nothing_fails_open_and_who_is_down_goes() -> None:
    drained = Adjustments(drained=frozenset({(None, A.key), (None, B.key)}))
    result = resolved(A, B, reach={"10.0.0.2": Reach.DOWN}, adjustments=drained)
    assert weights(result) == {"10.0.0.1:8080": 0}
    assert result.failed_open == ()
    assert reasons(result) == {"10.0.0.1:8080": Reason.DRAINED, "10.0.0.2:8080": Reason.DOWN}


@pytest.mark.parametrize("weight", [-1, 65536, True, "1"])
def test_an_operators_weight_has_its_range(weight: int) -> None:
    with pytest.raises(InvalidVIPError, match=r"every VIP: 10.0.0.1:8080: .* is not a weight \(0 to 65535\)"):
        Adjustments(weights={(None, A.key): weight})


# -- past the port mapping of our own host -----------------------------------------------------------------------------

MAPPED = Backend("10.0.0.1", 31000, agent="10.0.0.1", local=BackendKey("172.17.0.2", 80))


def test_on_its_own_host_a_mapped_backend_is_reached_past_the_mapping() -> None:
    assert weights(resolved(MAPPED, own="10.0.0.1")) == {"172.17.0.2:80": 1}
    assert weights(resolved(MAPPED, own="10.0.0.2")) == {"10.0.0.1:31000": 1}


def test_only_masquerading_leads_past_it() -> None:
    settings = VIPSettings(forward=ForwardingMethod.ROUTE)
    assert weights(resolved(MAPPED, own="10.0.0.1", settings=settings)) == {"10.0.0.1:31000": 1}


def test_a_place_of_the_other_family_is_of_no_use() -> None:
    mapped = Backend("10.0.0.1", 31000, agent="10.0.0.1", local=BackendKey("fd00::2", 80))
    assert weights(resolved(mapped, own="10.0.0.1")) == {"10.0.0.1:31000": 1}


def test_two_backends_at_one_place_are_one() -> None:
    twin = Backend("10.0.0.1", 31001, agent="10.0.0.1", local=BackendKey("172.17.0.2", 80))
    result = resolved(MAPPED, twin, own="10.0.0.1")
    assert weights(result) == {"172.17.0.2:80": 1}
    assert str(result.exclusions[0]).endswith("another backend of the VIP is reached at the same place (10.0.0.1:31000)")


# -- laws --------------------------------------------------------------------------------------------------------------

Backends = st.lists(
    st.builds(
        Backend,
        st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2", "224.0.0.1"]),
        st.integers(1, 2),
        st.integers(0, 2),
        st.sampled_from(["", "10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    ),
    max_size=8,
    unique_by=lambda backend: backend.key,
)
Targets = st.frozensets(
    st.tuples(
        st.sampled_from([None, WEB, FOO]),
        st.builds(BackendKey, st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), st.integers(1, 2)),
    ),
    max_size=4,
)
Worlds = st.builds(
    Adjustments, unhealthy=Targets, drained=Targets, weights=Targets.map(lambda targets: dict.fromkeys(targets, 3))
)


@given(
    st.sampled_from([WEB, FOO]),
    Backends,
    Worlds,
    st.dictionaries(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]), st.sampled_from(Reach)),
)
def test_every_backend_is_served_or_accounted_for_and_no_service_loses_all(
    key: VIPKey, backends: list[Backend], adjustments: Adjustments, reach: dict[str, Reach]
) -> None:
    result = resolved(*backends, key=key, adjustments=adjustments, reach=reach)
    rows = {str(row): row.weight for _, rows in result.services for row in rows}
    out = {str(one.backend): one for one in result.exclusions}
    for backend in backends:
        name = str(backend.key)
        if name in out:
            assert rows.get(name) == (0 if out[name].held else None)
        else:
            assert rows[name] == adjustments.weigh(key, backend)[0] > 0
    for service, destinations in result.services:
        wanted = [
            backend
            for backend in backends
            if (":" in backend.address) == (service.key.family == IPV6)
            and backend.address != "224.0.0.1"
            and adjustments.weigh(key, backend)[0]
        ]
        assert any(row.weight for row in destinations) == bool(wanted)
