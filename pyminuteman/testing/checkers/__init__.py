"""The properties of a cluster, one small module each, for simulations and for whatever else keeps a truth to hold them against."""

from __future__ import annotations

from pyminuteman.testing.checkers.agreement import MembersAgree as MembersAgree
from pyminuteman.testing.checkers.checker import Checker as Checker
from pyminuteman.testing.checkers.connectivity import GraphConnected as GraphConnected
from pyminuteman.testing.checkers.detection import DetectionInTime as DetectionInTime
from pyminuteman.testing.checkers.false_alarms import NoFalseAlarms as NoFalseAlarms
from pyminuteman.testing.checkers.keys import KeysRotate as KeysRotate
from pyminuteman.testing.checkers.multicast import MulticastOnce as MulticastOnce
from pyminuteman.testing.checkers.recovery import RecoveryInTime as RecoveryInTime
from pyminuteman.testing.checkers.resurrection import NoResurrection as NoResurrection
from pyminuteman.testing.checkers.routes import RoutesHold as RoutesHold
from pyminuteman.testing.checkers.symmetry import LinksSymmetric as LinksSymmetric
from pyminuteman.testing.checkers.views import ViewsBounded as ViewsBounded

__all__ = [
    "EVERY_CHECKER",
    "Checker",
    "DetectionInTime",
    "GraphConnected",
    "KeysRotate",
    "LinksSymmetric",
    "MembersAgree",
    "MulticastOnce",
    "NoFalseAlarms",
    "NoResurrection",
    "RecoveryInTime",
    "RoutesHold",
    "ViewsBounded",
]

EVERY_CHECKER: tuple[type[Checker], ...] = (
    ViewsBounded,
    LinksSymmetric,
    GraphConnected,
    MembersAgree,
    RoutesHold,
    DetectionInTime,
    NoFalseAlarms,
    RecoveryInTime,
    NoResurrection,
    MulticastOnce,
    KeysRotate,
)
