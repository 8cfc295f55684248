#!/bin/sh
# On a backend of a VIP with forward = "route": hold the address without answering for it, as the director does that.
set -eu
vip=${1:-192.0.2.10}
sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
ip link add vip type dummy
ip address add "$vip/32" dev vip
ip link set vip up
