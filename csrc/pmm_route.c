/* SPDX-License-Identifier: Apache-2.0
 * Links, and virtual addresses as addresses or as routes: changing them. Messages are built by libnl-route. */
#include "pmm_route_internal.h"

#include <net/if.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <netlink/route/rtnl.h>

int pmm_link_get(struct pmm_route_socket *s, const char *name, struct pmm_link *out)
{
	struct rtnl_link *link = NULL;
	int error;

	memset(out, 0, sizeof(*out));
	/* By libnl's own way of asking: it takes its sequence numbers and answers by itself. */
	error = pmm_from_libnl(rtnl_link_get_kernel(s->nl, 0, name, &link));
	if (error)
		return error;
	out->index = (uint32_t)rtnl_link_get_ifindex(link);
	out->flags = rtnl_link_get_flags(link);
	out->mtu = rtnl_link_get_mtu(link);
	if (rtnl_link_get_type(link))
		strncpy(out->kind, rtnl_link_get_type(link), sizeof(out->kind) - 1);
	rtnl_link_put(link);
	return 0;
}

int pmm_link_add(struct pmm_route_socket *s, const char *name, const char *kind)
{
	struct rtnl_link *link = rtnl_link_alloc();
	struct nl_msg *message = NULL;
	int error;

	if (!link)
		return -ENOMEM;
	rtnl_link_set_name(link, name);
	rtnl_link_set_flags(link, IFF_UP);
	error = pmm_from_libnl(rtnl_link_set_type(link, kind));
	if (!error)
		error = pmm_from_libnl(rtnl_link_build_add_request(link, NLM_F_CREATE | NLM_F_EXCL, &message));
	rtnl_link_put(link);
	return error ? error : pmm_route_request(s, message);
}

int pmm_link_up(struct pmm_route_socket *s, uint32_t index)
{
	struct rtnl_link *old = rtnl_link_alloc();
	struct rtnl_link *changes = rtnl_link_alloc();
	struct nl_msg *message = NULL;
	int error = -ENOMEM;

	if (old && changes) {
		rtnl_link_set_ifindex(old, (int)index);
		rtnl_link_set_flags(changes, IFF_UP);
		error = pmm_from_libnl(rtnl_link_build_change_request(old, changes, 0, &message));
	}
	rtnl_link_put(old);
	rtnl_link_put(changes);
	return error ? error : pmm_route_request(s, message);
}

int pmm_link_delete(struct pmm_route_socket *s, uint32_t index)
{
	struct rtnl_link *link = rtnl_link_alloc();
	struct nl_msg *message = NULL;
	int error = -ENOMEM;

	if (link) {
		rtnl_link_set_ifindex(link, (int)index);
		error = pmm_from_libnl(rtnl_link_build_delete_request(link, &message));
	}
	rtnl_link_put(link);
	return error ? error : pmm_route_request(s, message);
}

static struct nl_addr *address_of(const struct pmm_vip *vip)
{
	struct nl_addr *address = nl_addr_build(vip->family, vip->address, pmm_address_size(vip->family));

	if (address)
		nl_addr_set_prefixlen(address, (int)pmm_address_size(vip->family) * 8);
	return address;
}

static int address_request(const struct pmm_vip *vip, uint32_t index, bool add, struct nl_msg **out)
{
	struct rtnl_addr *entry = rtnl_addr_alloc();
	struct nl_addr *address = address_of(vip);
	int error = -ENOMEM;

	if (entry && address) {
		rtnl_addr_set_ifindex(entry, (int)index);
		error = pmm_from_libnl(rtnl_addr_set_local(entry, address));
		/* Nobody else is asked whether they have it: everybody has it. */
		if (!error && add && vip->family == AF_INET6)
			rtnl_addr_set_flags(entry, IFA_F_NODAD);
	}
	if (!error)
		error = pmm_from_libnl(add ? rtnl_addr_build_add_request(entry, NLM_F_CREATE | NLM_F_EXCL, out)
					   : rtnl_addr_build_delete_request(entry, 0, out));
	nl_addr_put(address);
	rtnl_addr_put(entry);
	return error;
}

/* `table`: RT_TABLE_LOCAL, or RT_TABLE_MAIN for the second of IPv6. `source`: NULL, or of the same family. */
static int route_request(const struct pmm_vip *vip, uint32_t index, uint32_t table, bool add, const struct pmm_vip *source,
			 struct nl_msg **out)
{
	struct rtnl_route *route = rtnl_route_alloc();
	struct rtnl_nexthop *hop = rtnl_route_nh_alloc();
	struct nl_addr *address = address_of(vip);
	struct nl_addr *from = source ? address_of(source) : NULL;
	int error = -ENOMEM;

	if (!route || !hop || !address || (source && !from)) {
		if (hop)
			rtnl_route_nh_free(hop);
		goto out;
	}
	/* lo is the first device of every namespace (LOOPBACK_IFINDEX in include/net/flow.h). */
	rtnl_route_nh_set_ifindex(hop, vip->family == AF_INET6 && table == RT_TABLE_LOCAL ? 1 : (int)index);
	rtnl_route_add_nexthop(route, hop); /* hop is the route's now */
	rtnl_route_set_family(route, vip->family);
	rtnl_route_set_table(route, table);
	rtnl_route_set_protocol(route, PMM_ROUTE_PROTOCOL);
	rtnl_route_set_type(route, table == RT_TABLE_LOCAL ? RTN_LOCAL : RTN_UNICAST);
	rtnl_route_set_scope(route, vip->family == AF_INET ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE);
	error = pmm_from_libnl(rtnl_route_set_dst(route, address));
	if (!error && from)
		error = pmm_from_libnl(rtnl_route_set_pref_src(route, from));
	if (!error)
		error = pmm_from_libnl(add ? rtnl_route_build_add_request(route, NLM_F_CREATE | NLM_F_EXCL, out)
					   : rtnl_route_build_del_request(route, 0, out));
out:
	nl_addr_put(from);
	nl_addr_put(address);
	rtnl_route_put(route);
	return error;
}

static int32_t settle(int32_t error, bool add)
{
	bool done = add ? error == -EEXIST : error == -EADDRNOTAVAIL || error == -ESRCH || error == -ENOENT;

	return done ? 0 : error;
}

int pmm_vips_change(struct pmm_route_socket *s, int mode, uint32_t index, int add, const struct pmm_vip *source,
		    const struct pmm_vip *vips, uint32_t count, int32_t *outcomes)
{
	int32_t answers[PMM_ROUTE_PIPELINE];
	uint32_t owners[PMM_ROUTE_PIPELINE];
	int failed = 0;
	int error = 0;

	for (uint32_t i = 0; i < count; i++)
		outcomes[i] = -ENODATA;
	for (uint32_t next = 0; next < count && !error;) {
		uint32_t queued = 0;
		uint32_t first = s->sequence + 1;
		size_t length = 0;

		/* At most two requests each. */
		for (; next < count && queued + 2 <= PMM_ROUTE_PIPELINE; next++) {
			const struct pmm_vip *vip = &vips[next];
			uint32_t parts = mode == PMM_VIP_ROUTE && vip->family == AF_INET6 ? 2 : 1;

			outcomes[next] = vip->family == AF_INET || vip->family == AF_INET6 ? 0 : -EAFNOSUPPORT;
			for (uint32_t part = 0; part < parts && !outcomes[next]; part++) {
				/* On the way in the local one first: a packet never leaves by the device. Out the other way. */
				bool local = (part == 0) == (add != 0) || parts == 1;
				struct nl_msg *message = NULL;
				int64_t sequence;

				if (mode == PMM_VIP_ADDRESS)
					outcomes[next] = address_request(vip, index, add, &message);
				else
					outcomes[next] = route_request(vip, index, local ? RT_TABLE_LOCAL : RT_TABLE_MAIN, add,
								       add && vip->family == AF_INET ? source : NULL, &message);
				if (outcomes[next])
					break;
				sequence = pmm_route_enqueue(s, message, &length);
				if (sequence < 0) {
					outcomes[next] = (int32_t)sequence;
					break;
				}
				answers[queued] = -ENODATA;
				owners[queued++] = next;
			}
		}
		if (!queued)
			continue;
		error = pmm_route_send(s, length);
		if (!error)
			error = pmm_route_collect(s, first, queued, answers);
		for (uint32_t i = 0; i < queued; i++) {
			int32_t answer = settle(answers[i], add != 0);

			if (answer && !outcomes[owners[i]])
				outcomes[owners[i]] = answer;
		}
	}
	for (uint32_t i = 0; i < count; i++)
		failed += outcomes[i] != 0;
	return error ? error : failed;
}
