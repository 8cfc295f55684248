/* SPDX-License-Identifier: Apache-2.0
 * Which virtual addresses there are. Messages are read by libnl-route. */
#include "pmm_route_internal.h"

#include <netlink/route/addr.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>

static int keep(struct pmm_vip **list, size_t *count, size_t *room, struct nl_addr *address)
{
	struct pmm_vip vip = { .family = (uint8_t)nl_addr_get_family(address) };
	size_t size = pmm_address_size(vip.family);

	if (nl_addr_get_len(address) != size || nl_addr_get_prefixlen(address) != size * 8)
		return 0;
	if (*count == PMM_ROUTE_VIPS_MAX)
		return -EMSGSIZE;
	if (*count == *room) {
		size_t larger = *room ? *room * 2 : 64;
		struct pmm_vip *grown = realloc(*list, larger * sizeof(**list));

		if (!grown)
			return -ENOMEM;
		*list = grown;
		*room = larger;
	}
	memcpy(vip.address, nl_addr_get_binary_addr(address), size);
	(*list)[(*count)++] = vip;
	return 0;
}

static int compare(const void *one, const void *other)
{
	return memcmp(one, other, sizeof(struct pmm_vip));
}

static int list_addresses(struct pmm_route_socket *s, uint32_t index)
{
	struct nl_cache *cache;
	int error = pmm_from_libnl(rtnl_addr_alloc_cache(s->nl, &cache));

	if (error)
		return error;
	for (struct nl_object *at = nl_cache_get_first(cache); at && !error; at = nl_cache_get_next(at)) {
		struct rtnl_addr *entry = (struct rtnl_addr *)at;
		struct nl_addr *local = rtnl_addr_get_local(entry);

		if ((uint32_t)rtnl_addr_get_ifindex(entry) == index && local &&
		    (rtnl_addr_get_family(entry) == AF_INET || rtnl_addr_get_family(entry) == AF_INET6))
			error = keep(&s->vips, &s->vip_count, &s->vip_room, local);
	}
	nl_cache_put(cache);
	return error;
}

/* One route of a dump: kept if it is one of ours. */
static int look_at(struct pmm_route_socket *s, struct nlmsghdr *header, uint32_t table, uint32_t index, bool half)
{
	struct rtnl_route *route = NULL;
	struct rtnl_nexthop *hop;
	int error;

	if (header->nlmsg_type != RTM_NEWROUTE || header->nlmsg_len < NLMSG_LENGTH(sizeof(struct rtmsg)) ||
	    ((struct rtmsg *)NLMSG_DATA(header))->rtm_protocol != PMM_ROUTE_PROTOCOL)
		return 0;
	error = pmm_from_libnl(rtnl_route_parse(header, &route));
	if (error)
		return error;
	hop = rtnl_route_nexthop_n(route, 0);
	if (rtnl_route_get_table(route) == table && hop && (uint32_t)rtnl_route_nh_get_ifindex(hop) == index)
		error = half ? keep(&s->half, &s->half_count, &s->half_room, rtnl_route_get_dst(route))
			     : keep(&s->vips, &s->vip_count, &s->vip_room, rtnl_route_get_dst(route));
	rtnl_route_put(route);
	return error;
}

/* Whether filters of dumps are obeyed. Where they are not (before 4.20) every route comes, and is passed over here. Only for
 * our own dumps: those of libnl have headers that the kernel then finds too short. */
static void be_strict(struct pmm_route_socket *s, int strict)
{
	(void)setsockopt(s->fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &strict, sizeof(strict));
}

static int list_routes(struct pmm_route_socket *s, uint8_t family, uint32_t table, uint32_t index, bool half)
{
	struct {
		struct nlmsghdr header;
		struct rtmsg route;
		struct rtattr table_attribute;
		uint32_t table;
	} ask = { .header = { sizeof(ask), RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, ++s->sequence, 0 },
		  .route = { .rtm_family = family, .rtm_protocol = PMM_ROUTE_PROTOCOL },
		  .table_attribute = { RTA_LENGTH(sizeof(uint32_t)), RTA_TABLE },
		  .table = table };
	int error;

	memcpy(s->send_buffer, &ask, sizeof(ask));
	be_strict(s, 1);
	error = pmm_route_send(s, sizeof(ask));
	be_strict(s, 0);
	for (int strays = 0; !error && strays < PMM_ROUTE_STRAYS_MAX; strays++) {
		ssize_t length = pmm_route_receive(s);
		bool interrupted = false;

		if (length < 0)
			return (int)length;
		for (struct nlmsghdr *at = (void *)s->receive_buffer; NLMSG_OK(at, length); at = NLMSG_NEXT(at, length)) {
			int32_t answer = 0;

			if (at->nlmsg_seq != s->sequence)
				continue;
			interrupted |= (at->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
			if (at->nlmsg_type == NLMSG_DONE || at->nlmsg_type == NLMSG_ERROR) {
				if (at->nlmsg_len >= NLMSG_LENGTH(sizeof(answer)))
					memcpy(&answer, NLMSG_DATA(at), sizeof(answer));
				/* A table that nobody has put anything into does not exist: that is an empty one. */
				if (answer == -ENOENT)
					answer = 0;
				return !answer && interrupted ? -EINTR : answer;
			}
			if (!error)
				error = look_at(s, at, table, index, half);
		}
		if (interrupted && !error)
			error = -EINTR;
	}
	return error ? error : -EBADMSG;
}

/* IPv6: the main table's routes that have one in the table local too. Both sorted. */
static void intersect(struct pmm_route_socket *s, size_t from)
{
	size_t kept = from;

	if (s->half_count) /* there may be no array yet */
		qsort(s->half, s->half_count, sizeof(*s->half), compare);
	for (size_t i = from; i < s->vip_count; i++)
		if (s->half_count && bsearch(&s->vips[i], s->half, s->half_count, sizeof(*s->half), compare))
			s->vips[kept++] = s->vips[i];
	s->vip_count = kept;
}

static int list_once(struct pmm_route_socket *s, int mode, uint32_t index)
{
	size_t count = 0;
	int error;

	s->vip_count = 0;
	s->half_count = 0;
	if (mode == PMM_VIP_ADDRESS) {
		error = list_addresses(s, index);
	} else {
		size_t from;

		error = list_routes(s, AF_INET, RT_TABLE_LOCAL, index, false);
		from = s->vip_count;
		if (!error)
			error = list_routes(s, AF_INET6, RT_TABLE_LOCAL, 1, mode == PMM_VIP_ROUTE);
		if (!error && mode == PMM_VIP_ROUTE)
			error = list_routes(s, AF_INET6, RT_TABLE_MAIN, index, false);
		if (!error && mode == PMM_VIP_ROUTE)
			intersect(s, from);
	}
	if (error)
		return error;
	if (s->vip_count)
		qsort(s->vips, s->vip_count, sizeof(*s->vips), compare);
	for (size_t i = 0; i < s->vip_count; i++)
		if (!count || compare(&s->vips[count - 1], &s->vips[i]))
			s->vips[count++] = s->vips[i];
	s->vip_count = count;
	return (int)count;
}

int pmm_vips_list(struct pmm_route_socket *s, int mode, uint32_t index, const struct pmm_vip **out)
{
	int count = -EINTR;

	for (int tries = 0; count == -EINTR && tries < PMM_ROUTE_DUMP_TRIES; tries++)
		count = list_once(s, mode, index);
	*out = s->vips;
	return count;
}
