/* SPDX-License-Identifier: Apache-2.0
 * From netlink messages to records. Bytes and a length in, no socket: fuzzers come in here. */
#include "pmm_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/tcp_metrics.h>
#include <string.h>

/* The kernel's text, when it follows the error: behind the header of the request, and behind the request's whole body
 * unless that was cut off (NLM_F_CAPPED). */
static void find_text(struct pmm_message *out)
{
	const struct nlmsgerr *error = nlmsg_data(out->header);
	size_t length = (size_t)nlmsg_datalen(out->header);
	size_t skip = sizeof(*error);
	struct nlattr *found;

	if (!(out->header->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	if (!(out->header->nlmsg_flags & NLM_F_CAPPED)) {
		if (error->msg.nlmsg_len < NLMSG_HDRLEN)
			return;
		skip += NLMSG_ALIGN((size_t)error->msg.nlmsg_len) - NLMSG_HDRLEN;
	}
	if (skip >= length)
		return;
	found = nla_find((const struct nlattr *)(const void *)((const uint8_t *)error + skip), (int)(length - skip),
			 NLMSGERR_ATTR_MSG);
	if (!found || nla_len(found) < 1)
		return;
	out->text = nla_data(found);
	out->text_length = strnlen(out->text, (size_t)nla_len(found));
}

int pmm_next_message(const uint8_t **bytes, size_t *length, uint16_t family_id, struct pmm_message *out)
{
	const struct nlmsghdr *header = (const struct nlmsghdr *)(const void *)*bytes;
	size_t step;

	memset(out, 0, sizeof(*out));
	if (*length == 0)
		return 0;
	if (*length < NLMSG_HDRLEN || header->nlmsg_len < NLMSG_HDRLEN || header->nlmsg_len > *length)
		return -EBADMSG;
	step = NLMSG_ALIGN((size_t)header->nlmsg_len);
	if (step > *length)
		step = *length;
	*bytes += step;
	*length -= step;
	out->header = header;
	if (header->nlmsg_type == NLMSG_ERROR) {
		if (nlmsg_datalen(header) < (int)sizeof(struct nlmsgerr))
			return -EBADMSG;
		memcpy(&out->error, nlmsg_data(header), sizeof(out->error));
		find_text(out);
	} else if (header->nlmsg_type == NLMSG_DONE) {
		if (nlmsg_datalen(header) >= (int)sizeof(out->error))
			memcpy(&out->error, nlmsg_data(header), sizeof(out->error));
	} else if (header->nlmsg_type == family_id) {
		if (nlmsg_datalen(header) < (int)GENL_HDRLEN)
			return -EBADMSG;
		out->attributes = (struct nlattr *)((uint8_t *)nlmsg_data(header) + GENL_HDRLEN);
		out->attributes_length = nlmsg_datalen(header) - (int)GENL_HDRLEN;
	}
	/* An error is a negative errno. Anything else would read as success, or overflow when turned round. */
	return out->error > 0 || out->error < -4095 ? -EBADMSG : 1;
}

/* As libnl's nla_parse(), whose calls were three quarters of a dump's instructions (callgrind: 2,450 a destination with them,
 * 1,170 without). `least` has the least length of each type. */
static int parse(struct nlattr *table[], int maximum, struct nlattr *attribute, int length, const uint8_t *least)
{
	uint8_t *at = (uint8_t *)attribute;
	size_t left = length > 0 ? (size_t)length : 0;

	memset(table, 0, ((size_t)maximum + 1) * sizeof(*table));
	while (left >= sizeof(*attribute)) {
		size_t size, step;
		int type;

		attribute = (struct nlattr *)(void *)at;
		size = attribute->nla_len;
		if (size < sizeof(*attribute) || size > left)
			break;
		type = attribute->nla_type & NLA_TYPE_MASK;
		if (type <= maximum) {
			if (least && size - sizeof(*attribute) < least[type])
				return -EBADMSG;
			table[type] = attribute;
		}
		step = (size + 3) & ~(size_t)3;
		if (step > left)
			break;
		at += step;
		left -= step;
	}
	return 0;
}

/* Find the nest of `type` in a message and parse it. */
static int open_nest(const struct pmm_message *message, int type, struct nlattr *table[], int maximum, const uint8_t *least)
{
	struct nlattr *nest = message->attributes ? nla_find(message->attributes, message->attributes_length, type) : NULL;

	return nest ? parse(table, maximum, nla_data(nest), nla_len(nest), least) : -EBADMSG;
}

static void copy_name(char out[16], const struct nlattr *attribute)
{
	size_t length;

	if (!attribute)
		return;
	length = strnlen(nla_data(attribute), (size_t)nla_len(attribute));
	memcpy(out, nla_data(attribute), length < 15 ? length : 15);
}

static void copy_address(uint8_t out[16], uint8_t family, const struct nlattr *attribute)
{
	/* The kernel sends 16 bytes for either family; of an IPv4 address only the first four count. */
	size_t length = family == AF_INET6 ? 16 : 4;

	if ((size_t)nla_len(attribute) < length)
		length = (size_t)nla_len(attribute);
	memcpy(out, nla_data(attribute), length);
}

static void copy_port(uint8_t out[2], const struct nlattr *attribute)
{
	uint16_t port = nla_get_u16(attribute);

	memcpy(out, &port, sizeof(port));
}

static uint64_t number(const struct nlattr *attribute)
{
	if (!attribute)
		return 0;
	switch (nla_len(attribute)) { /* the old nest has 32 bits for most, 64 for bytes; the new one 64 throughout */
	case 4:
		return nla_get_u32(attribute);
	case 8:
		return nla_get_u64((struct nlattr *)attribute);
	default:
		return 0;
	}
}

static int decode_counters(const struct nlattr *wide, const struct nlattr *narrow, struct pmm_counters *out)
{
	const struct nlattr *nest = wide ? wide : narrow;
	struct nlattr *a[IPVS_STATS_ATTR_MAX + 1];

	if (!nest)
		return 0;
	if (parse(a, IPVS_STATS_ATTR_MAX, nla_data(nest), nla_len(nest), NULL) < 0)
		return -EBADMSG;
	out->connections = number(a[IPVS_STATS_ATTR_CONNS]);
	out->in_packets = number(a[IPVS_STATS_ATTR_INPKTS]);
	out->out_packets = number(a[IPVS_STATS_ATTR_OUTPKTS]);
	out->in_bytes = number(a[IPVS_STATS_ATTR_INBYTES]);
	out->out_bytes = number(a[IPVS_STATS_ATTR_OUTBYTES]);
	out->connection_rate = number(a[IPVS_STATS_ATTR_CPS]);
	out->in_packet_rate = number(a[IPVS_STATS_ATTR_INPPS]);
	out->out_packet_rate = number(a[IPVS_STATS_ATTR_OUTPPS]);
	out->in_byte_rate = number(a[IPVS_STATS_ATTR_INBPS]);
	out->out_byte_rate = number(a[IPVS_STATS_ATTR_OUTBPS]);
	return 0;
}

static const uint8_t service_least[IPVS_SVC_ATTR_MAX + 1] = {
	[IPVS_SVC_ATTR_AF] = 2,      [IPVS_SVC_ATTR_PROTOCOL] = 2, [IPVS_SVC_ATTR_ADDR] = 4,
	[IPVS_SVC_ATTR_PORT] = 2,    [IPVS_SVC_ATTR_FWMARK] = 4,   [IPVS_SVC_ATTR_FLAGS] = sizeof(struct ip_vs_flags),
	[IPVS_SVC_ATTR_TIMEOUT] = 4, [IPVS_SVC_ATTR_NETMASK] = 4,
};

int pmm_decode_service(const struct pmm_message *message, struct pmm_service *service, struct pmm_counters *counters,
		       uint32_t *features)
{
	struct nlattr *a[IPVS_SVC_ATTR_MAX + 1];
	struct ip_vs_flags flags;
	uint32_t value;
	int error = open_nest(message, IPVS_CMD_ATTR_SERVICE, a, IPVS_SVC_ATTR_MAX, service_least);

	if (error)
		return error;
	if (!a[IPVS_SVC_ATTR_AF] || !a[IPVS_SVC_ATTR_SCHED_NAME] || !a[IPVS_SVC_ATTR_FLAGS] || !a[IPVS_SVC_ATTR_TIMEOUT] ||
	    !a[IPVS_SVC_ATTR_NETMASK])
		return -EBADMSG;
	memset(service, 0, sizeof(*service));
	service->family = (uint8_t)nla_get_u16(a[IPVS_SVC_ATTR_AF]);
	if (service->family != AF_INET && service->family != AF_INET6)
		return -EBADMSG;
	if (a[IPVS_SVC_ATTR_FWMARK]) {
		service->by_mark = 1;
		value = htonl(nla_get_u32(a[IPVS_SVC_ATTR_FWMARK]));
		memcpy(service->address, &value, sizeof(value));
	} else {
		if (!a[IPVS_SVC_ATTR_PROTOCOL] || !a[IPVS_SVC_ATTR_ADDR] || !a[IPVS_SVC_ATTR_PORT])
			return -EBADMSG;
		service->protocol = (uint8_t)nla_get_u16(a[IPVS_SVC_ATTR_PROTOCOL]);
		copy_address(service->address, service->family, a[IPVS_SVC_ATTR_ADDR]);
		copy_port(service->port, a[IPVS_SVC_ATTR_PORT]);
	}
	copy_name(service->scheduler, a[IPVS_SVC_ATTR_SCHED_NAME]);
	copy_name(service->engine, a[IPVS_SVC_ATTR_PE_NAME]);
	memcpy(&flags, nla_data(a[IPVS_SVC_ATTR_FLAGS]), sizeof(flags));
	service->flags = flags.flags & ~(uint32_t)IP_VS_SVC_F_HASHED; /* the kernel's own bookkeeping */
	/* Without persistence its timeout and mask mean nothing, whatever somebody left in them: not a difference to mend. */
	if (service->flags & IP_VS_SVC_F_PERSISTENT) {
		service->timeout = nla_get_u32(a[IPVS_SVC_ATTR_TIMEOUT]);
		value = nla_get_u32(a[IPVS_SVC_ATTR_NETMASK]);
	} else {
		value = service->family == AF_INET6 ? 128 : ~0U;
	}
	if (service->family == AF_INET6)
		value = htonl(value);
	memcpy(service->netmask, &value, sizeof(value));
	if (a[IPVS_SVC_ATTR_STATS64])
		*features |= PMM_FEATURE_STATS64;
	if (!counters)
		return 0;
	memset(counters, 0, sizeof(*counters));
	return decode_counters(a[IPVS_SVC_ATTR_STATS64], a[IPVS_SVC_ATTR_STATS], counters);
}

static const uint8_t destination_least[IPVS_DEST_ATTR_MAX + 1] = {
	[IPVS_DEST_ATTR_ADDR] = 4,         [IPVS_DEST_ATTR_PORT] = 2,        [IPVS_DEST_ATTR_FWD_METHOD] = 4,
	[IPVS_DEST_ATTR_WEIGHT] = 4,       [IPVS_DEST_ATTR_U_THRESH] = 4,    [IPVS_DEST_ATTR_L_THRESH] = 4,
	[IPVS_DEST_ATTR_ACTIVE_CONNS] = 4, [IPVS_DEST_ATTR_INACT_CONNS] = 4, [IPVS_DEST_ATTR_PERSIST_CONNS] = 4,
	[IPVS_DEST_ATTR_ADDR_FAMILY] = 2,  [IPVS_DEST_ATTR_TUN_TYPE] = 1,    [IPVS_DEST_ATTR_TUN_PORT] = 2,
	[IPVS_DEST_ATTR_TUN_FLAGS] = 2,
};

int pmm_decode_destination(const struct pmm_message *message, uint8_t service_family, struct pmm_destination *destination,
			   struct pmm_counters *counters, uint32_t *features)
{
	struct nlattr *a[IPVS_DEST_ATTR_MAX + 1];
	int error = open_nest(message, IPVS_CMD_ATTR_DEST, a, IPVS_DEST_ATTR_MAX, destination_least);

	if (error)
		return error;
	if (!a[IPVS_DEST_ATTR_ADDR] || !a[IPVS_DEST_ATTR_PORT] || !a[IPVS_DEST_ATTR_FWD_METHOD] || !a[IPVS_DEST_ATTR_WEIGHT])
		return -EBADMSG;
	memset(destination, 0, sizeof(*destination));
	destination->family = service_family;
	if (a[IPVS_DEST_ATTR_ADDR_FAMILY]) {
		destination->family = (uint8_t)nla_get_u16(a[IPVS_DEST_ATTR_ADDR_FAMILY]);
		*features |= PMM_FEATURE_ADDRESS_FAMILY;
	}
	if (destination->family != AF_INET && destination->family != AF_INET6)
		return -EBADMSG;
	copy_address(destination->address, destination->family, a[IPVS_DEST_ATTR_ADDR]);
	copy_port(destination->port, a[IPVS_DEST_ATTR_PORT]);
	destination->weight = nla_get_u32(a[IPVS_DEST_ATTR_WEIGHT]);
	destination->forwarding = (uint8_t)(nla_get_u32(a[IPVS_DEST_ATTR_FWD_METHOD]) & IP_VS_CONN_F_FWD_MASK);
	destination->upper_threshold = (uint32_t)number(a[IPVS_DEST_ATTR_U_THRESH]);
	destination->lower_threshold = (uint32_t)number(a[IPVS_DEST_ATTR_L_THRESH]);
	if (a[IPVS_DEST_ATTR_TUN_TYPE])
		*features |= PMM_FEATURE_TUNNEL;
	if (a[IPVS_DEST_ATTR_TUN_FLAGS])
		*features |= PMM_FEATURE_TUNNEL_FLAGS;
	/* As with persistence: without a tunnel its settings mean nothing. */
	if (destination->forwarding == IP_VS_CONN_F_TUNNEL) {
		if (a[IPVS_DEST_ATTR_TUN_TYPE])
			destination->tunnel_type = nla_get_u8(a[IPVS_DEST_ATTR_TUN_TYPE]);
		if (a[IPVS_DEST_ATTR_TUN_PORT])
			destination->tunnel_port = ntohs(nla_get_u16(a[IPVS_DEST_ATTR_TUN_PORT]));
		if (a[IPVS_DEST_ATTR_TUN_FLAGS])
			destination->tunnel_flags = nla_get_u16(a[IPVS_DEST_ATTR_TUN_FLAGS]);
	}
	if (!counters)
		return 0;
	memset(counters, 0, sizeof(*counters));
	counters->active = (uint32_t)number(a[IPVS_DEST_ATTR_ACTIVE_CONNS]);
	counters->inactive = (uint32_t)number(a[IPVS_DEST_ATTR_INACT_CONNS]);
	counters->persistent = (uint32_t)number(a[IPVS_DEST_ATTR_PERSIST_CONNS]);
	return decode_counters(a[IPVS_DEST_ATTR_STATS64], a[IPVS_DEST_ATTR_STATS], counters);
}

int pmm_decode_config(const struct pmm_message *message, struct pmm_config *config)
{
	static const uint8_t least[IPVS_CMD_ATTR_MAX + 1] = {
		[IPVS_INFO_ATTR_VERSION] = 4, /* 1 to 3 are nests in other answers, never in these */
		[IPVS_INFO_ATTR_CONN_TAB_SIZE] = 4,  [IPVS_CMD_ATTR_TIMEOUT_TCP] = 4,
		[IPVS_CMD_ATTR_TIMEOUT_TCP_FIN] = 4, [IPVS_CMD_ATTR_TIMEOUT_UDP] = 4,
	};
	struct nlattr *a[IPVS_CMD_ATTR_MAX + 1];
	const struct genlmsghdr *header;

	if (!message->attributes || parse(a, IPVS_CMD_ATTR_MAX, message->attributes, message->attributes_length, least) < 0)
		return -EBADMSG;
	header = nlmsg_data(message->header);
	if (header->cmd == IPVS_CMD_SET_INFO) { /* what GET_INFO is answered with */
		config->version = (uint32_t)number(a[IPVS_INFO_ATTR_VERSION]);
		config->table_size = (uint32_t)number(a[IPVS_INFO_ATTR_CONN_TAB_SIZE]);
	} else {
		config->tcp_timeout = (uint32_t)number(a[IPVS_CMD_ATTR_TIMEOUT_TCP]);
		config->tcp_fin_timeout = (uint32_t)number(a[IPVS_CMD_ATTR_TIMEOUT_TCP_FIN]);
		config->udp_timeout = (uint32_t)number(a[IPVS_CMD_ATTR_TIMEOUT_UDP]);
	}
	return 0;
}

int pmm_decode_daemon(const struct pmm_message *message, struct pmm_daemon *daemon)
{
	static const uint8_t least[IPVS_DAEMON_ATTR_MAX + 1] = {
		[IPVS_DAEMON_ATTR_STATE] = 4,       [IPVS_DAEMON_ATTR_SYNC_ID] = 4,       [IPVS_DAEMON_ATTR_SYNC_MAXLEN] = 2,
		[IPVS_DAEMON_ATTR_MCAST_GROUP] = 4, [IPVS_DAEMON_ATTR_MCAST_GROUP6] = 16, [IPVS_DAEMON_ATTR_MCAST_PORT] = 2,
		[IPVS_DAEMON_ATTR_MCAST_TTL] = 1,
	};
	struct nlattr *a[IPVS_DAEMON_ATTR_MAX + 1];
	int error = open_nest(message, IPVS_CMD_ATTR_DAEMON, a, IPVS_DAEMON_ATTR_MAX, least);

	if (error)
		return error;
	if (!a[IPVS_DAEMON_ATTR_STATE])
		return -EBADMSG;
	memset(daemon, 0, sizeof(*daemon));
	daemon->state = nla_get_u32(a[IPVS_DAEMON_ATTR_STATE]);
	daemon->sync_id = (uint32_t)number(a[IPVS_DAEMON_ATTR_SYNC_ID]);
	copy_name(daemon->interface, a[IPVS_DAEMON_ATTR_MCAST_IFN]);
	if (a[IPVS_DAEMON_ATTR_SYNC_MAXLEN])
		daemon->sync_maxlen = nla_get_u16(a[IPVS_DAEMON_ATTR_SYNC_MAXLEN]);
	if (a[IPVS_DAEMON_ATTR_MCAST_GROUP]) {
		daemon->group_family = AF_INET;
		memcpy(daemon->group, nla_data(a[IPVS_DAEMON_ATTR_MCAST_GROUP]), 4);
	}
	if (a[IPVS_DAEMON_ATTR_MCAST_GROUP6]) {
		daemon->group_family = AF_INET6;
		memcpy(daemon->group, nla_data(a[IPVS_DAEMON_ATTR_MCAST_GROUP6]), 16);
	}
	if (a[IPVS_DAEMON_ATTR_MCAST_PORT])
		daemon->port = nla_get_u16(a[IPVS_DAEMON_ATTR_MCAST_PORT]);
	if (a[IPVS_DAEMON_ATTR_MCAST_TTL])
		daemon->ttl = nla_get_u8(a[IPVS_DAEMON_ATTR_MCAST_TTL]);
	return 0;
}

int pmm_decode_family(const struct pmm_message *message, uint16_t *family_id)
{
	static const uint8_t least[CTRL_ATTR_FAMILY_ID + 1] = { [CTRL_ATTR_FAMILY_ID] = 2 };
	struct nlattr *a[CTRL_ATTR_FAMILY_ID + 1];
	uint16_t found;

	if (!message->attributes || parse(a, CTRL_ATTR_FAMILY_ID, message->attributes, message->attributes_length, least) < 0 ||
	    !a[CTRL_ATTR_FAMILY_ID])
		return -EBADMSG;
	found = nla_get_u16(a[CTRL_ATTR_FAMILY_ID]);
	if (found <= GENL_ID_CTRL) /* netlink's own messages, and the controller */
		return -EBADMSG;
	*family_id = found;
	return 0;
}

int pmm_decode_metric(const struct pmm_message *message, struct pmm_metric *metric)
{
	static const uint8_t least[TCP_METRICS_ATTR_MAX + 1] = { [TCP_METRICS_ATTR_ADDR_IPV4] = 4,
								 [TCP_METRICS_ATTR_ADDR_IPV6] = 16 };
	struct nlattr *a[TCP_METRICS_ATTR_MAX + 1];
	struct nlattr *values[TCP_METRIC_MAX + 2]; /* an attribute's number is its index in the enum, and one */
	const struct nlattr *nest;
	uint64_t age;

	if (!message->attributes || parse(a, TCP_METRICS_ATTR_MAX, message->attributes, message->attributes_length, least) < 0)
		return -EBADMSG;
	memset(metric, 0, sizeof(*metric));
	if (a[TCP_METRICS_ATTR_ADDR_IPV6])
		metric->family = AF_INET6;
	else if (a[TCP_METRICS_ATTR_ADDR_IPV4])
		metric->family = AF_INET;
	else
		return -EBADMSG;
	copy_address(metric->address, metric->family,
		     a[metric->family == AF_INET6 ? TCP_METRICS_ATTR_ADDR_IPV6 : TCP_METRICS_ATTR_ADDR_IPV4]);
	age = number(a[TCP_METRICS_ATTR_AGE]);
	metric->age_ms = age < UINT32_MAX ? (uint32_t)age : UINT32_MAX;
	nest = a[TCP_METRICS_ATTR_VALS];
	if (!nest) /* a row that is there for TCP Fast Open only */
		return 0;
	if (parse(values, TCP_METRIC_MAX + 1, nla_data(nest), nla_len(nest), NULL) < 0)
		return -EBADMSG;
	metric->rtt = (uint32_t)number(values[TCP_METRIC_RTT_US + 1]);
	metric->deviation = (uint32_t)number(values[TCP_METRIC_RTTVAR_US + 1]);
	return 0;
}
