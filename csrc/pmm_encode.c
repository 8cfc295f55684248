/* SPDX-License-Identifier: Apache-2.0
 * From records to netlink requests. One nl_msg is built in again and again: a batch of 100,000 allocates nothing. */
#include "pmm_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

/* libnl appends at nlmsg_len, so putting it back empties the message. */
static int start(struct nl_msg *message, uint16_t family_id, uint32_t sequence, uint8_t command, int flags)
{
	nlmsg_hdr(message)->nlmsg_len = NLMSG_HDRLEN;
	if (!genlmsg_put(message, 0, sequence, family_id, 0, NLM_F_REQUEST | flags, command, IPVS_GENL_VERSION))
		return -EMSGSIZE;
	/* libnl replaces the numbers 0 (NL_AUTO_PORT, NL_AUTO_SEQ) only when it sends, which we do ourselves. */
	return 0;
}

static uint16_t port_of(const uint8_t port[2])
{
	uint16_t value;

	memcpy(&value, port, sizeof(value)); /* stays in network order: IPVS wants it so */
	return value;
}

static int put_service(struct nl_msg *message, const struct pmm_service *service, bool whole)
{
	struct ip_vs_flags flags = { service->flags, ~0U };
	struct nlattr *nest = nla_nest_start(message, IPVS_CMD_ATTR_SERVICE);
	uint32_t number;

	if (!nest)
		return -EMSGSIZE;
	NLA_PUT_U16(message, IPVS_SVC_ATTR_AF, service->family);
	if (service->by_mark) {
		memcpy(&number, service->address, sizeof(number));
		NLA_PUT_U32(message, IPVS_SVC_ATTR_FWMARK, ntohl(number));
	} else {
		NLA_PUT_U16(message, IPVS_SVC_ATTR_PROTOCOL, service->protocol);
		NLA_PUT(message, IPVS_SVC_ATTR_ADDR, sizeof(service->address), service->address);
		NLA_PUT_U16(message, IPVS_SVC_ATTR_PORT, port_of(service->port));
	}
	if (whole) {
		NLA_PUT_STRING(message, IPVS_SVC_ATTR_SCHED_NAME, service->scheduler);
		if (service->engine[0])
			NLA_PUT_STRING(message, IPVS_SVC_ATTR_PE_NAME, service->engine);
		NLA_PUT(message, IPVS_SVC_ATTR_FLAGS, sizeof(flags), &flags);
		NLA_PUT_U32(message, IPVS_SVC_ATTR_TIMEOUT, service->timeout);
		memcpy(&number, service->netmask, sizeof(number));
		/* IPv4: the mask itself, as it lies in memory; IPv6: the prefix length as a number. */
		NLA_PUT_U32(message, IPVS_SVC_ATTR_NETMASK, service->family == AF_INET6 ? ntohl(number) : number);
	}
	nla_nest_end(message, nest);
	return 0;
nla_put_failure:
	return -EMSGSIZE;
}

static int put_destination(struct nl_msg *message, const struct pmm_destination *destination, bool whole)
{
	struct nlattr *nest = nla_nest_start(message, IPVS_CMD_ATTR_DEST);

	if (!nest)
		return -EMSGSIZE;
	NLA_PUT(message, IPVS_DEST_ATTR_ADDR, sizeof(destination->address), destination->address);
	NLA_PUT_U16(message, IPVS_DEST_ATTR_PORT, port_of(destination->port));
	NLA_PUT_U16(message, IPVS_DEST_ATTR_ADDR_FAMILY, destination->family);
	if (whole) {
		NLA_PUT_U32(message, IPVS_DEST_ATTR_FWD_METHOD, destination->forwarding);
		NLA_PUT_U32(message, IPVS_DEST_ATTR_WEIGHT, destination->weight);
		NLA_PUT_U32(message, IPVS_DEST_ATTR_U_THRESH, destination->upper_threshold);
		NLA_PUT_U32(message, IPVS_DEST_ATTR_L_THRESH, destination->lower_threshold);
		if (destination->forwarding == IP_VS_CONN_F_TUNNEL) {
			NLA_PUT_U8(message, IPVS_DEST_ATTR_TUN_TYPE, destination->tunnel_type);
			NLA_PUT_U16(message, IPVS_DEST_ATTR_TUN_PORT, htons(destination->tunnel_port));
			NLA_PUT_U16(message, IPVS_DEST_ATTR_TUN_FLAGS, destination->tunnel_flags);
		}
	}
	nla_nest_end(message, nest);
	return 0;
nla_put_failure:
	return -EMSGSIZE;
}

int pmm_encode_operation(struct nl_msg *message, uint16_t family_id, uint32_t sequence, const struct pmm_service *service,
			 const struct pmm_operation *operation)
{
	bool whole_service = false, destination = false, whole_destination = false;
	int error = start(message, family_id, sequence, operation->command, 0);

	if (error)
		return error;
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
	error = put_service(message, service, whole_service);
	if (!error && destination)
		error = put_destination(message, &operation->destination, whole_destination);
	return error;
}

int pmm_encode_get(struct nl_msg *message, uint16_t family_id, uint32_t sequence, uint8_t command, int flags,
		   const struct pmm_service *service)
{
	int error = start(message, family_id, sequence, command, flags);

	return error || !service ? error : put_service(message, service, false);
}

int pmm_encode_config(struct nl_msg *message, uint16_t family_id, uint32_t sequence, const struct pmm_config *config)
{
	int error = start(message, family_id, sequence, IPVS_CMD_SET_CONFIG, NLM_F_ACK);

	if (error)
		return error;
	if (config->tcp_timeout)
		NLA_PUT_U32(message, IPVS_CMD_ATTR_TIMEOUT_TCP, config->tcp_timeout);
	if (config->tcp_fin_timeout)
		NLA_PUT_U32(message, IPVS_CMD_ATTR_TIMEOUT_TCP_FIN, config->tcp_fin_timeout);
	if (config->udp_timeout)
		NLA_PUT_U32(message, IPVS_CMD_ATTR_TIMEOUT_UDP, config->udp_timeout);
	return 0;
nla_put_failure:
	return -EMSGSIZE;
}

int pmm_encode_daemon(struct nl_msg *message, uint16_t family_id, uint32_t sequence, uint8_t command,
		      const struct pmm_daemon *daemon)
{
	struct nlattr *nest;
	int error = start(message, family_id, sequence, command, NLM_F_ACK);

	if (error)
		return error;
	nest = nla_nest_start(message, IPVS_CMD_ATTR_DAEMON);
	if (!nest)
		return -EMSGSIZE;
	NLA_PUT_U32(message, IPVS_DAEMON_ATTR_STATE, daemon->state);
	if (command == IPVS_CMD_NEW_DAEMON) {
		NLA_PUT_STRING(message, IPVS_DAEMON_ATTR_MCAST_IFN, daemon->interface);
		NLA_PUT_U32(message, IPVS_DAEMON_ATTR_SYNC_ID, daemon->sync_id);
		/* What is left at zero is not sent: the kernel's default, and an old kernel is not asked for what it lacks. */
		if (daemon->sync_maxlen)
			NLA_PUT_U16(message, IPVS_DAEMON_ATTR_SYNC_MAXLEN, daemon->sync_maxlen);
		if (daemon->group_family == AF_INET)
			NLA_PUT(message, IPVS_DAEMON_ATTR_MCAST_GROUP, 4, daemon->group);
		if (daemon->group_family == AF_INET6)
			NLA_PUT(message, IPVS_DAEMON_ATTR_MCAST_GROUP6, 16, daemon->group);
		if (daemon->port)
			NLA_PUT_U16(message, IPVS_DAEMON_ATTR_MCAST_PORT, daemon->port);
		if (daemon->ttl)
			NLA_PUT_U8(message, IPVS_DAEMON_ATTR_MCAST_TTL, daemon->ttl);
	}
	nla_nest_end(message, nest);
	return 0;
nla_put_failure:
	return -EMSGSIZE;
}
