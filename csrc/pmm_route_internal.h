/* SPDX-License-Identifier: Apache-2.0
 * What the files about links and routes share among themselves. */
#ifndef PMM_ROUTE_INTERNAL_H
#define PMM_ROUTE_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* setns */
#endif
#include <errno.h>
#include <linux/rtnetlink.h>
#include <netlink/netlink.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "pmm_route.h"

#ifndef NETLINK_GET_STRICT_CHK
#define NETLINK_GET_STRICT_CHK 12
#endif

enum {
	/* Ours among the routes of a host: rt_protos of iproute2 leaves it free. 'M'. */
	PMM_ROUTE_PROTOCOL = 77,
	PMM_ROUTE_SEND_SIZE = 32 * 1024,
	PMM_ROUTE_RECEIVE_SIZE = 64 * 1024, /* a dump's datagram has at most 32 KiB */
	PMM_ROUTE_RECEIVE_BUFFER = 1024 * 1024,
	/* Requests under way at once. Each answer takes under 1 KiB of a receive buffer that has at least 208 KiB. */
	PMM_ROUTE_PIPELINE = 128,
	PMM_ROUTE_DUMP_TRIES = 5,
	PMM_ROUTE_STRAYS_MAX = 1 << 20, /* messages of a dump: beyond these it is a runaway */
	PMM_ROUTE_VIPS_MAX = 1 << 20,
	PMM_ROUTE_INTERRUPTS_MAX = 64
};

struct pmm_route_socket {
	struct nl_sock *nl;
	int fd;
	uint32_t sequence;
	uint8_t *send_buffer;
	uint8_t *receive_buffer;
	struct pmm_vip *vips;
	size_t vip_count, vip_room;
	struct pmm_vip *half; /* IPv6 routes of the table local, while those of the main table are read */
	size_t half_count, half_room;
};

/* pmm_route_socket.c */
int pmm_from_libnl(int error); /* libnl's own numbers as negative errnos, for calls that give us no others */
ssize_t pmm_route_receive(struct pmm_route_socket *s); /* a datagram is now in receive_buffer: its length, or -errno */
int pmm_route_send(struct pmm_route_socket *s, size_t length);
/* Put a request of libnl's behind those in the send buffer; its sequence number, or a negative errno. Takes `message`. */
int64_t pmm_route_enqueue(struct pmm_route_socket *s, struct nl_msg *message, size_t *length);
/* Wait for the answers of the requests first .. first + count - 1. */
int pmm_route_collect(struct pmm_route_socket *s, uint32_t first, uint32_t count, int32_t *errors);
int pmm_route_request(struct pmm_route_socket *s, struct nl_msg *message); /* one request and its answer; takes `message` */

static inline size_t pmm_address_size(uint8_t family)
{
	return family == AF_INET ? 4 : 16;
}

#endif
