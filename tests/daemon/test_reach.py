from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.daemon.reach import addresses_of, hosts_of, reach_of_status, reach_table
from pyminuteman.membership.effects import MemberStatus
from pyminuteman.membership.members import Member
from pyminuteman.membership.records import MemberState, Record
from pyminuteman.vips.resolution import Reach


def record(number: int, address: str, *more: str) -> Record:
    return Record(
        id=NodeId(bytes([number]) * 16),
        epoch=1,
        version=1,
        name=f"n{number}",
        endpoint=Endpoint(address, 61420),
        addresses=more,
        tags=(),
        state=MemberState.ALIVE,
        neighbours=(),
        accused=(),
        keys=(),
        protocol=(1, 1),
    )


def member(one: Record, status: MemberStatus) -> Member:
    return Member(one, status, 0.0)


def test_a_host_is_in_reach_as_its_member_is_at_every_address() -> None:
    one, two, three = record(1, "10.0.0.1", "10.1.0.1"), record(2, "10.0.0.2"), record(3, "10.0.0.3")
    members = {
        one.id: member(one, MemberStatus.ALIVE),
        two.id: member(two, MemberStatus.SUSPECT),
        three.id: member(three, MemberStatus.LEFT),
    }
    assert reach_table(members) == {
        "10.0.0.1": Reach.UP,
        "10.1.0.1": Reach.UP,
        "10.0.0.2": Reach.SUSPECT,
        "10.0.0.3": Reach.DOWN,
    }
    assert reach_of_status(MemberStatus.DOWN) is Reach.DOWN


def test_of_two_members_at_one_address_the_better_in_reach_counts() -> None:
    old, new = record(1, "10.0.0.1"), record(2, "10.0.0.1")
    for first, second in ((old, new), (new, old)):
        members = {first.id: member(first, MemberStatus.DOWN), second.id: member(second, MemberStatus.ALIVE)}
        assert reach_table(members) == {"10.0.0.1": Reach.UP}
    assert hosts_of([new, old]) == hosts_of([old, new]) == {"10.0.0.1": old.id}


def test_an_address_is_named_once() -> None:
    assert addresses_of(record(1, "10.0.0.1", "10.0.0.1", "fd00::1")) == ("10.0.0.1", "fd00::1")
