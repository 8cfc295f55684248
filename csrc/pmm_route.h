/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole boundary between Python and the kernel's links, addresses and routes, as far as host set-up needs them.
 * cffi parses this very file, as it does pmm_ipvs.h, and the rules are the same: crossed once a batch, 0 (or a count)
 * or a negative errno, fixed-width integers, unused bytes zero, addresses in network order.
 */
#ifndef PMM_ROUTE_H
#define PMM_ROUTE_H

#include <stddef.h>
#include <stdint.h>

/* How a virtual address is made this host's own. */
enum pmm_vip_mode {
	PMM_VIP_ADDRESS = 0, /* /32 or /128 on the device */
	PMM_VIP_ROUTE =
		1, /* "local VIP dev DEVICE scope host table local"; IPv6: there on lo, and in the main table on the device */
	PMM_VIP_INSIDE =
		2 /* the same with "src SOURCE", so that who connects has an address that others know; IPv6: on lo alone */
};

struct pmm_vip {
	uint8_t family; /* AF_INET or AF_INET6 */
	uint8_t reserved[3];
	uint8_t address[16]; /* IPv4 in the first four */
};

struct pmm_link {
	uint32_t index;
	uint32_t flags; /* IFF_* */
	uint32_t mtu;
	char kind[16]; /* "dummy", "bridge", ...; empty when the driver has none */
};

struct pmm_route_socket;

/* Open a routing socket in the network namespace of `netns` (a file descriptor; -1: this thread's). `timeout_ms` bounds
 * every single wait. -EPERM: entering another namespace takes CAP_SYS_ADMIN. */
int pmm_route_open(struct pmm_route_socket **out, int netns, int timeout_ms);
void pmm_route_close(struct pmm_route_socket *s);

int pmm_link_get(struct pmm_route_socket *s, const char *name, struct pmm_link *out); /* -ENODEV: there is none */
int pmm_link_add(struct pmm_route_socket *s, const char *name, const char *kind);     /* made and up */
int pmm_link_up(struct pmm_route_socket *s, uint32_t index);
int pmm_link_delete(struct pmm_route_socket *s, uint32_t index);

/* The virtual addresses on device `index`, sorted, no two alike. They belong to the socket and hold until its next list or
 * its end. As addresses: those with a prefix of full length. As routes: those of our protocol number only, whatever their
 * source; where an IPv6 one has two it counts when both are there. Returns how many. -EINTR: they changed during five reads
 * running. */
int pmm_vips_list(struct pmm_route_socket *s, int mode, uint32_t index, const struct pmm_vip **out);

/* Add (`add` 1) or remove (0) virtual addresses on device `index`, and tell the outcome of each: 0 or a negative errno.
 * One that is there already, or gone already, is a success. `source` (NULL: none) is the IPv4 one of PMM_VIP_INSIDE; IPv6 needs
 * none, for the kernel chooses an address of a device. Returns how many failed, or a negative errno when the socket failed;
 * outcomes that are then not known are -ENODATA. */
int pmm_vips_change(struct pmm_route_socket *s, int mode, uint32_t index, int add, const struct pmm_vip *source,
		    const struct pmm_vip *vips, uint32_t count, int32_t *outcomes);

#endif
