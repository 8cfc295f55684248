/* SPDX-License-Identifier: Apache-2.0
 * Links, and virtual addresses as addresses or as routes. Messages are built and read by libnl-route. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* setns */
#endif
#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <netlink/route/rtnl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

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

/* libnl's own numbers, for the few calls that do not give us the kernel's. */
static int from_libnl(int error)
{
	switch (error < 0 ? -error : error) {
	case 0:
		return 0;
	case NLE_NOMEM:
		return -ENOMEM;
	case NLE_PERM:
	case NLE_NOACCESS:
		return -EPERM;
	case NLE_OBJ_NOTFOUND:
	case NLE_NODEV:
		return -ENODEV;
	case NLE_EXIST:
		return -EEXIST;
	case NLE_OPNOTSUPP:
		return -EOPNOTSUPP;
	case NLE_AGAIN:
		return -ETIMEDOUT;
	case NLE_DUMP_INTR:
		return -EINTR;
	case NLE_RANGE:
		return -ERANGE;
	case NLE_BUSY:
		return -EBUSY;
	case NLE_INVAL:
		return -EINVAL;
	default:
		return -EIO;
	}
}

void pmm_route_close(struct pmm_route_socket *s)
{
	if (!s)
		return;
	nl_socket_free(s->nl);
	free(s->send_buffer);
	free(s->receive_buffer);
	free(s->vips);
	free(s->half);
	free(s);
}

static int open_here(struct pmm_route_socket **out, int timeout_ms)
{
	struct timeval timeout = { timeout_ms / 1000, (timeout_ms % 1000) * 1000 };
	struct pmm_route_socket *s = calloc(1, sizeof(*s));
	int size = PMM_ROUTE_RECEIVE_BUFFER;
	int error = -ENOMEM;

	*out = NULL;
	if (!s)
		return error;
	s->nl = nl_socket_alloc();
	s->send_buffer = malloc(PMM_ROUTE_SEND_SIZE);
	s->receive_buffer = malloc(PMM_ROUTE_RECEIVE_SIZE);
	if (!s->nl || !s->send_buffer || !s->receive_buffer)
		goto fail;
	errno = 0;
	if (nl_connect(s->nl, NETLINK_ROUTE) < 0) {
		error = errno ? -errno : -EPROTONOSUPPORT;
		goto fail;
	}
	s->fd = nl_socket_get_fd(s->nl);
	if (setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    setsockopt(s->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0) {
		error = -errno;
		goto fail;
	}
	/* libnl asks for 32 KiB, which 40 answers fill. FORCE takes CAP_NET_ADMIN; without it the limit is rmem_max. */
	if (setsockopt(s->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		(void)setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	*out = s;
	return 0;
fail:
	pmm_route_close(s);
	return error;
}

/* A socket is made in another namespace by a thread that goes there and ends: our own threads never leave theirs. */
struct errand {
	int netns;
	int timeout_ms;
	struct pmm_route_socket *socket;
	int result;
};

static void *open_in_namespace(void *argument)
{
	struct errand *errand = argument;

	if (setns(errand->netns, CLONE_NEWNET) < 0)
		errand->result = -errno;
	else
		errand->result = open_here(&errand->socket, errand->timeout_ms);
	return NULL;
}

int pmm_route_open(struct pmm_route_socket **out, int netns, int timeout_ms)
{
	struct errand errand = { .netns = netns, .timeout_ms = timeout_ms };
	pthread_t thread;
	int error;

	*out = NULL;
	if (netns < 0)
		return open_here(out, timeout_ms);
	error = pthread_create(&thread, NULL, open_in_namespace, &errand);
	if (error)
		return -error;
	pthread_join(thread, NULL);
	*out = errand.socket;
	return errand.result;
}

static ssize_t receive(struct pmm_route_socket *s)
{
	for (int interrupts = 0; interrupts < PMM_ROUTE_INTERRUPTS_MAX; interrupts++) {
		struct sockaddr_nl sender;
		struct iovec slot = { s->receive_buffer, PMM_ROUTE_RECEIVE_SIZE };
		struct msghdr message = { .msg_name = &sender, .msg_namelen = sizeof(sender), .msg_iov = &slot, .msg_iovlen = 1 };
		ssize_t length = recvmsg(s->fd, &message, 0);

		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? -ETIMEDOUT : -errno;
		if (message.msg_flags & MSG_TRUNC)
			return -EMSGSIZE;
		if (sender.nl_pid == 0) /* the kernel, nobody who pretends to be it */
			return length;
	}
	return -EINTR;
}

static int send_all(struct pmm_route_socket *s, size_t length)
{
	for (int interrupts = 0; interrupts < PMM_ROUTE_INTERRUPTS_MAX; interrupts++) {
		ssize_t sent = send(s->fd, s->send_buffer, length, MSG_NOSIGNAL);

		if (sent == (ssize_t)length)
			return 0;
		if (sent >= 0)
			return -EMSGSIZE;
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
	return -EINTR;
}

/* Put a request of libnl's behind those in the send buffer; its sequence number, or a negative errno. Takes `message`. */
static int64_t enqueue(struct pmm_route_socket *s, struct nl_msg *message, size_t *length)
{
	struct nlmsghdr *header = nlmsg_hdr(message);
	size_t size = NLMSG_ALIGN(header->nlmsg_len);

	if (*length + size > PMM_ROUTE_SEND_SIZE) {
		nlmsg_free(message);
		return -EMSGSIZE;
	}
	header->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	header->nlmsg_seq = ++s->sequence;
	header->nlmsg_pid = 0;
	memset(s->send_buffer + *length, 0, size);
	memcpy(s->send_buffer + *length, header, header->nlmsg_len);
	nlmsg_free(message);
	*length += size;
	return s->sequence;
}

/* Wait for the answers of the requests first .. first + count - 1. */
static int collect(struct pmm_route_socket *s, uint32_t first, uint32_t count, int32_t *errors)
{
	uint32_t seen = 0;

	for (int strays = 0; seen < count && strays < PMM_ROUTE_STRAYS_MAX; strays++) {
		ssize_t length = receive(s);

		if (length < 0)
			return (int)length;
		for (struct nlmsghdr *at = (void *)s->receive_buffer; NLMSG_OK(at, length); at = NLMSG_NEXT(at, length)) {
			uint32_t which = at->nlmsg_seq - first;

			if (at->nlmsg_type != NLMSG_ERROR || which >= count ||
			    at->nlmsg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr)))
				continue;
			errors[which] = ((struct nlmsgerr *)NLMSG_DATA(at))->error;
			seen++;
		}
	}
	return seen == count ? 0 : -EBADMSG;
}

/* One request and its answer. Takes `message`. */
static int request(struct pmm_route_socket *s, struct nl_msg *message)
{
	size_t length = 0;
	int64_t sequence = enqueue(s, message, &length);
	int32_t answer = -ENODATA;
	int error;

	if (sequence < 0)
		return (int)sequence;
	error = send_all(s, length);
	if (!error)
		error = collect(s, (uint32_t)sequence, 1, &answer);
	return error ? error : answer;
}

int pmm_link_get(struct pmm_route_socket *s, const char *name, struct pmm_link *out)
{
	struct rtnl_link *link = NULL;
	int error;

	memset(out, 0, sizeof(*out));
	/* By libnl's own way of asking: it takes its sequence numbers and answers by itself. */
	error = from_libnl(rtnl_link_get_kernel(s->nl, 0, name, &link));
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
	error = from_libnl(rtnl_link_set_type(link, kind));
	if (!error)
		error = from_libnl(rtnl_link_build_add_request(link, NLM_F_CREATE | NLM_F_EXCL, &message));
	rtnl_link_put(link);
	return error ? error : request(s, message);
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
		error = from_libnl(rtnl_link_build_change_request(old, changes, 0, &message));
	}
	rtnl_link_put(old);
	rtnl_link_put(changes);
	return error ? error : request(s, message);
}

int pmm_link_delete(struct pmm_route_socket *s, uint32_t index)
{
	struct rtnl_link *link = rtnl_link_alloc();
	struct nl_msg *message = NULL;
	int error = -ENOMEM;

	if (link) {
		rtnl_link_set_ifindex(link, (int)index);
		error = from_libnl(rtnl_link_build_delete_request(link, &message));
	}
	rtnl_link_put(link);
	return error ? error : request(s, message);
}

static size_t address_size(uint8_t family)
{
	return family == AF_INET ? 4 : 16;
}

static struct nl_addr *address_of(const struct pmm_vip *vip)
{
	struct nl_addr *address = nl_addr_build(vip->family, vip->address, address_size(vip->family));

	if (address)
		nl_addr_set_prefixlen(address, (int)address_size(vip->family) * 8);
	return address;
}

static int address_request(const struct pmm_vip *vip, uint32_t index, bool add, struct nl_msg **out)
{
	struct rtnl_addr *entry = rtnl_addr_alloc();
	struct nl_addr *address = address_of(vip);
	int error = -ENOMEM;

	if (entry && address) {
		rtnl_addr_set_ifindex(entry, (int)index);
		error = from_libnl(rtnl_addr_set_local(entry, address));
		/* Nobody else is asked whether they have it: everybody has it. */
		if (!error && add && vip->family == AF_INET6)
			rtnl_addr_set_flags(entry, IFA_F_NODAD);
	}
	if (!error)
		error = from_libnl(add ? rtnl_addr_build_add_request(entry, NLM_F_CREATE | NLM_F_EXCL, out) :
					 rtnl_addr_build_delete_request(entry, 0, out));
	nl_addr_put(address);
	rtnl_addr_put(entry);
	return error;
}

/* `table`: RT_TABLE_LOCAL, or RT_TABLE_MAIN for the second of IPv6. */
static int route_request(const struct pmm_vip *vip, uint32_t index, uint32_t table, bool add, struct nl_msg **out)
{
	struct rtnl_route *route = rtnl_route_alloc();
	struct rtnl_nexthop *hop = rtnl_route_nh_alloc();
	struct nl_addr *address = address_of(vip);
	int error = -ENOMEM;

	if (!route || !hop || !address) {
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
	error = from_libnl(rtnl_route_set_dst(route, address));
	if (!error)
		error = from_libnl(add ? rtnl_route_build_add_request(route, NLM_F_CREATE | NLM_F_EXCL, out) :
					 rtnl_route_build_del_request(route, 0, out));
out:
	nl_addr_put(address);
	rtnl_route_put(route);
	return error;
}

static int32_t settle(int32_t error, bool add)
{
	bool done = add ? error == -EEXIST : error == -EADDRNOTAVAIL || error == -ESRCH || error == -ENOENT;

	return done ? 0 : error;
}

int pmm_vips_change(struct pmm_route_socket *s, int mode, uint32_t index, int add, const struct pmm_vip *vips, uint32_t count,
		    int32_t *outcomes)
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
					outcomes[next] =
						route_request(vip, index, local ? RT_TABLE_LOCAL : RT_TABLE_MAIN, add, &message);
				if (outcomes[next])
					break;
				sequence = enqueue(s, message, &length);
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
		error = send_all(s, length);
		if (!error)
			error = collect(s, first, queued, answers);
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

static int keep(struct pmm_vip **list, size_t *count, size_t *room, struct nl_addr *address)
{
	struct pmm_vip vip = { .family = (uint8_t)nl_addr_get_family(address) };
	size_t size = address_size(vip.family);

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
	int error = from_libnl(rtnl_addr_alloc_cache(s->nl, &cache));

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
	error = from_libnl(rtnl_route_parse(header, &route));
	if (error)
		return error;
	hop = rtnl_route_nexthop_n(route, 0);
	if (rtnl_route_get_table(route) == table && hop && (uint32_t)rtnl_route_nh_get_ifindex(hop) == index)
		error = half ? keep(&s->half, &s->half_count, &s->half_room, rtnl_route_get_dst(route)) :
			       keep(&s->vips, &s->vip_count, &s->vip_room, rtnl_route_get_dst(route));
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
	error = send_all(s, sizeof(ask));
	be_strict(s, 0);
	for (int strays = 0; !error && strays < PMM_ROUTE_STRAYS_MAX; strays++) {
		ssize_t length = receive(s);
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
			error = list_routes(s, AF_INET6, RT_TABLE_LOCAL, 1, true);
		if (!error)
			error = list_routes(s, AF_INET6, RT_TABLE_MAIN, index, false);
		if (!error)
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
