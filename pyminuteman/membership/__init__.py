"""Who is alive, known everywhere in under half a second: HyParView views, gossiped adjacency, adaptive failure detection.

    async with open_membership(name="web1", bind=Endpoint.parse("10.0.0.1:61420"), contacts=seeds, keyring=keyring) as membership:
        async with membership.notifications() as notifications:
            async for notification in notifications:
                match notification:
                    case MemberUp(record) | MemberSuspect(record): ...

:func:`open_membership` gives a :class:`Membership`, run by trio. What it runs, :class:`MembershipNode`, does no input or output and
knows no clock, so it can be driven by anything. Other modules of this package may change between releases.
"""

from __future__ import annotations

from pyminuteman.membership.config import MembershipConfig as MembershipConfig
from pyminuteman.membership.effects import Conflict as Conflict
from pyminuteman.membership.effects import Delivered as Delivered
from pyminuteman.membership.effects import Effect as Effect
from pyminuteman.membership.effects import EpochTaken as EpochTaken
from pyminuteman.membership.effects import LocalStall as LocalStall
from pyminuteman.membership.effects import MemberDown as MemberDown
from pyminuteman.membership.effects import MemberLeft as MemberLeft
from pyminuteman.membership.effects import MemberStatus as MemberStatus
from pyminuteman.membership.effects import MemberSuspect as MemberSuspect
from pyminuteman.membership.effects import MemberUp as MemberUp
from pyminuteman.membership.effects import MemberUpdated as MemberUpdated
from pyminuteman.membership.effects import Notification as Notification
from pyminuteman.membership.effects import Notify as Notify
from pyminuteman.membership.effects import PartitionSuspected as PartitionSuspected
from pyminuteman.membership.effects import Received as Received
from pyminuteman.membership.effects import Send as Send
from pyminuteman.membership.effects import ViewChanged as ViewChanged
from pyminuteman.membership.errors import InsecureError as InsecureError
from pyminuteman.membership.errors import KeyringError as KeyringError
from pyminuteman.membership.errors import LocalProtocolError as LocalProtocolError
from pyminuteman.membership.errors import MembershipError as MembershipError
from pyminuteman.membership.errors import NoContactAnswered as NoContactAnswered
from pyminuteman.membership.errors import RemoteProtocolError as RemoteProtocolError
from pyminuteman.membership.keyring import Key as Key
from pyminuteman.membership.keyring import Keyring as Keyring
from pyminuteman.membership.keyring import load_key_file as load_key_file
from pyminuteman.membership.keyring import save_key_file as save_key_file
from pyminuteman.membership.members import Member as Member
from pyminuteman.membership.messages import PacketId as PacketId
from pyminuteman.membership.messages import Peer as Peer
from pyminuteman.membership.node import MembershipNode as MembershipNode
from pyminuteman.membership.priority import Priority as Priority
from pyminuteman.membership.priority import be_realtime as be_realtime
from pyminuteman.membership.priority import take_realtime_priority as take_realtime_priority
from pyminuteman.membership.records import MemberState as MemberState
from pyminuteman.membership.records import Record as Record
from pyminuteman.membership.subscriptions import NotificationInbox as NotificationInbox
from pyminuteman.membership.subscriptions import PacketInbox as PacketInbox
from pyminuteman.membership.transport import DEFAULT_PORT as DEFAULT_PORT
from pyminuteman.membership.transport import NetworkTransport as NetworkTransport
from pyminuteman.membership.transport import Transport as Transport
from pyminuteman.membership.trio_driver import Membership as Membership
from pyminuteman.membership.trio_driver import open_membership as open_membership
