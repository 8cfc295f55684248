/* SPDX-License-Identifier: Apache-2.0
 * From records to netlink requests. One nl_msg is built in again and again: a batch of 100,000 allocates nothing.
 *
 * Attributes are put here and not by libnl's nla_put(), whose calls were over half of a batch's instructions (callgrind:
 * 2,570 a request with them, 310 without). Every request fits PMM_REQUEST_SIZE, so there is no room to run out of. */
#include "pmm_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/genetlink.h>
#include <string.h>

static void start(struct nl_msg *message, uint16_t family_id, uint32_t sequence, uint8_t command, int flags)
{
	struct nlmsghdr *header = nlmsg_hdr(message);
	const struct genlmsghdr generic = { command, IPVS_GENL_VERSION, 0 };

	*header =
		(struct nlmsghdr){ NLMSG_HDRLEN + sizeof(generic), family_id, (uint16_t)(NLM_F_REQUEST | flags), sequence, 0 };
	memcpy(header + 1, &generic, sizeof(generic));
}

static inline struct nlattr *tail(struct nlmsghdr *header)
{
	return (struct nlattr *)(void *)((uint8_t *)header + header->nlmsg_len);
}

static inline void put(struct nlmsghdr *header, uint16_t type, size_t size, const void *data)
{
	struct nlattr *attribute = tail(header);
	size_t padded = (size + 3) & ~(size_t)3;

	attribute->nla_len = (uint16_t)(sizeof(*attribute) + size);
	attribute->nla_type = type;
	if (padded != size)
		memset((uint8_t *)(attribute + 1) + padded - 4, 0, 4);
	memcpy(attribute + 1, data, size);
	header->nlmsg_len += (uint32_t)(sizeof(*attribute) + padded);
}

static inline void put_u8(struct nlmsghdr *header, uint16_t type, uint8_t value)
{
	put(header, type, sizeof(value), &value);
}

static inline void put_u16(struct nlmsghdr *header, uint16_t type, uint16_t value)
{
	put(header, type, sizeof(value), &value);
}

static inline void put_u32(struct nlmsghdr *header, uint16_t type, uint32_t value)
{
	put(header, type, sizeof(value), &value);
}

/* A name of at most 15 characters, and its terminating zero. */
static void put_name(struct nlmsghdr *header, uint16_t type, const char name[16])
{
	char text[16] = { 0 };
	size_t length = strnlen(name, sizeof(text) - 1);

	memcpy(text, name, length);
	put(header, type, length + 1, text);
}

static inline struct nlattr *open_nest(struct nlmsghdr *header, uint16_t type)
{
	struct nlattr *nest = tail(header);

	put(header, type | NLA_F_NESTED, 0, "");
	return nest;
}

static inline void close_nest(struct nlmsghdr *header, struct nlattr *nest)
{
	nest->nla_len = (uint16_t)((uint8_t *)tail(header) - (uint8_t *)nest);
}

static uint16_t port_of(const uint8_t port[2])
{
	uint16_t value;

	memcpy(&value, port, sizeof(value)); /* stays in network order: IPVS wants it so */
	return value;
}

static void put_service(struct nlmsghdr *header, const struct pmm_service *service, bool whole)
{
	struct ip_vs_flags flags = { service->flags, ~0U };
	struct nlattr *nest = open_nest(header, IPVS_CMD_ATTR_SERVICE);
	uint32_t number;

	put_u16(header, IPVS_SVC_ATTR_AF, service->family);
	if (service->by_mark) {
		memcpy(&number, service->address, sizeof(number));
		put_u32(header, IPVS_SVC_ATTR_FWMARK, ntohl(number));
	} else {
		put_u16(header, IPVS_SVC_ATTR_PROTOCOL, service->protocol);
		put(header, IPVS_SVC_ATTR_ADDR, sizeof(service->address), service->address);
		put_u16(header, IPVS_SVC_ATTR_PORT, port_of(service->port));
	}
	if (whole) {
		put_name(header, IPVS_SVC_ATTR_SCHED_NAME, service->scheduler);
		if (service->engine[0])
			put_name(header, IPVS_SVC_ATTR_PE_NAME, service->engine);
		put(header, IPVS_SVC_ATTR_FLAGS, sizeof(flags), &flags);
		put_u32(header, IPVS_SVC_ATTR_TIMEOUT, service->timeout);
		memcpy(&number, service->netmask, sizeof(number));
		/* IPv4: the mask itself, as it lies in memory; IPv6: the prefix length as a number. */
		put_u32(header, IPVS_SVC_ATTR_NETMASK, service->family == AF_INET6 ? ntohl(number) : number);
	}
	close_nest(header, nest);
}

static void put_destination(struct nlmsghdr *header, const struct pmm_destination *destination, bool whole)
{
	struct nlattr *nest = open_nest(header, IPVS_CMD_ATTR_DEST);

	put(header, IPVS_DEST_ATTR_ADDR, sizeof(destination->address), destination->address);
	put_u16(header, IPVS_DEST_ATTR_PORT, port_of(destination->port));
	put_u16(header, IPVS_DEST_ATTR_ADDR_FAMILY, destination->family);
	if (whole) {
		put_u32(header, IPVS_DEST_ATTR_FWD_METHOD, destination->forwarding);
		put_u32(header, IPVS_DEST_ATTR_WEIGHT, destination->weight);
		put_u32(header, IPVS_DEST_ATTR_U_THRESH, destination->upper_threshold);
		put_u32(header, IPVS_DEST_ATTR_L_THRESH, destination->lower_threshold);
		if (destination->forwarding == IP_VS_CONN_F_TUNNEL) {
			put_u8(header, IPVS_DEST_ATTR_TUN_TYPE, destination->tunnel_type);
			put_u16(header, IPVS_DEST_ATTR_TUN_PORT, htons(destination->tunnel_port));
			put_u16(header, IPVS_DEST_ATTR_TUN_FLAGS, destination->tunnel_flags);
		}
	}
	close_nest(header, nest);
}

int pmm_encode_operation(struct nl_msg *message, uint16_t family_id, uint32_t sequence, const struct pmm_service *service,
			 const struct pmm_operation *operation)
{
	bool whole_service = false, destination = false, whole_destination = false;

	start(message, family_id, sequence, operation->command, 0);
	switch (operation->command) {
	case IPVS_CMD_NEW_SERVICE:
	case IPVS_CMD_SET_SERVICE:
		whole_service = true;
		break;
	case IPVS_CMD_NEW_DEST:
	case IPVS_CMD_SET_DEST:
		destination = whole_destination = true;
		break;
	case IPVS_CMD_DEL_DEST:
		destination = true;
		break;
	case IPVS_CMD_DEL_SERVICE:
		break;
	case IPVS_CMD_ZERO:
	case IPVS_CMD_FLUSH:
		if (!service)
			return 0;
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (!service)
		return -EINVAL;
	put_service(nlmsg_hdr(message), service, whole_service);
	if (destination)
		put_destination(nlmsg_hdr(message), &operation->destination, whole_destination);
	return 0;
}

int pmm_encode_get(struct nl_msg *message, uint16_t family_id, uint32_t sequence, uint8_t command, int flags,
		   const struct pmm_service *service)
{
	start(message, family_id, sequence, command, flags);
	if (service)
		put_service(nlmsg_hdr(message), service, false);
	return 0;
}

int pmm_encode_config(struct nl_msg *message, uint16_t family_id, uint32_t sequence, const struct pmm_config *config)
{
	struct nlmsghdr *header = nlmsg_hdr(message);

	start(message, family_id, sequence, IPVS_CMD_SET_CONFIG, NLM_F_ACK);
	if (config->tcp_timeout)
		put_u32(header, IPVS_CMD_ATTR_TIMEOUT_TCP, config->tcp_timeout);
	if (config->tcp_fin_timeout)
		put_u32(header, IPVS_CMD_ATTR_TIMEOUT_TCP_FIN, config->tcp_fin_timeout);
	if (config->udp_timeout)
		put_u32(header, IPVS_CMD_ATTR_TIMEOUT_UDP, config->udp_timeout);
	return 0;
}

int pmm_encode_daemon(struct nl_msg *message, uint16_t family_id, uint32_t sequence, uint8_t command,
		      const struct pmm_daemon *daemon)
{
	struct nlmsghdr *header = nlmsg_hdr(message);
	struct nlattr *nest;

	start(message, family_id, sequence, command, NLM_F_ACK);
	nest = open_nest(header, IPVS_CMD_ATTR_DAEMON);
	put_u32(header, IPVS_DAEMON_ATTR_STATE, daemon->state);
	if (command == IPVS_CMD_NEW_DAEMON) {
		put_name(header, IPVS_DAEMON_ATTR_MCAST_IFN, daemon->interface);
		put_u32(header, IPVS_DAEMON_ATTR_SYNC_ID, daemon->sync_id);
		/* What is left at zero is not sent: the kernel's default, and an old kernel is not asked for what it lacks. */
		if (daemon->sync_maxlen)
			put_u16(header, IPVS_DAEMON_ATTR_SYNC_MAXLEN, daemon->sync_maxlen);
		if (daemon->group_family == AF_INET)
			put(header, IPVS_DAEMON_ATTR_MCAST_GROUP, 4, daemon->group);
		if (daemon->group_family == AF_INET6)
			put(header, IPVS_DAEMON_ATTR_MCAST_GROUP6, 16, daemon->group);
		if (daemon->port)
			put_u16(header, IPVS_DAEMON_ATTR_MCAST_PORT, daemon->port);
		if (daemon->ttl)
			put_u8(header, IPVS_DAEMON_ATTR_MCAST_TTL, daemon->ttl);
	}
	close_nest(header, nest);
	return 0;
}

int pmm_encode_family(struct nl_msg *message, uint32_t sequence, const char *name)
{
	start(message, GENL_ID_CTRL, sequence, CTRL_CMD_GETFAMILY, 0);
	put_name(nlmsg_hdr(message), CTRL_ATTR_FAMILY_NAME, name);
	return 0;
}
