/* SPDX-License-Identifier: Apache-2.0
 * What the C files share among themselves, and the fuzzers reach. */
#ifndef PMM_INTERNAL_H
#define PMM_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* recvmmsg, setns */
#endif
#include <linux/ip_vs.h>
#include <linux/netlink.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "pmm_ipvs.h"

_Static_assert(sizeof(struct pmm_service) == 72, "records.py packs 72 bytes");
_Static_assert(sizeof(struct pmm_destination) == 40, "records.py packs 40 bytes");
_Static_assert(sizeof(struct pmm_operation) == 48, "records.py packs 48 bytes");
_Static_assert(sizeof(struct pmm_counters) == 96, "records.py unpacks 96 bytes");
_Static_assert(sizeof(struct pmm_metric) == 32, "tcp_metrics.py unpacks 32 bytes");
_Static_assert(offsetof(struct pmm_service, scheduler) == PMM_SERVICE_KEY_SIZE, "the key comes first");
_Static_assert(offsetof(struct pmm_destination, weight) == PMM_DESTINATION_KEY_SIZE, "the key comes first");

enum {
	/* netlink(7) dumps never use more than 32 KiB a datagram (netlink_recvmsg in net/netlink/af_netlink.c). */
	PMM_RECEIVE_SIZE = 32 * 1024,
	PMM_RECEIVE_SLOTS = 16,
	/* About 470 requests: measured, the knee beyond which a larger datagram is no faster. */
	PMM_SEND_SIZE = 64 * 1024,
	/* The longest request we build is under 300 bytes (a service with all attributes, and a destination). */
	PMM_REQUEST_SIZE = 512,
	PMM_TEXTS_SIZE = 64 * 1024,
	/* A receive buffer's bytes per waiting acknowledgement: 774 measured on 6.1, rounded up for other kernels. */
	PMM_BYTES_PER_ACK = 1024,
	PMM_RECEIVE_BUFFER = 1024 * 1024,
	PMM_INTERRUPTS_MAX = 64, /* EINTR in a row before we give up */
	PMM_DUMP_TRIES = 5,
	PMM_STRAYS_MAX = 1 << 16,   /* messages that answer nothing of ours, before we call it nonsense */
	PMM_SERVICES_MAX = 1 << 20, /* beyond these a dump is taken for a runaway, -EMSGSIZE */
	PMM_DESTINATIONS_MAX = 1 << 24,
	PMM_METRICS_MAX = 1 << 18 /* the kernel's hash has 16,384 buckets of at most 6 by default (tcp_metrics.c) */
};

struct pmm_socket {
	struct nl_sock *nl; /* NULL when attached */
	int fd;
	int timeout_ms;
	uint16_t family_id;
	uint32_t sequence;     /* of the last request sent */
	uint32_t requests_max; /* a datagram: so many errors fit our receive buffer */
	uint64_t system_calls;
	struct nl_msg *message; /* the one request under construction, used again and again */
	uint8_t *send_buffer;
	uint8_t *receive_buffer;
	struct mmsghdr received[PMM_RECEIVE_SLOTS];
	struct iovec slots[PMM_RECEIVE_SLOTS];
	struct sockaddr_nl senders[PMM_RECEIVE_SLOTS];
	char *texts;
	uint32_t texts_used;
	/* The last dump. Kept between dumps: a table read again costs no allocation. */
	struct pmm_service *services;
	struct pmm_counters *service_counters;
	uint32_t services_size;
	struct pmm_destination *destinations;
	struct pmm_counters *destination_counters;
	uint32_t destinations_size;
	struct pmm_metric *metrics; /* of the last pmm_get_metrics */
	uint32_t metrics_size;
	uint16_t metrics_family; /* 0 until asked for */
};

/* pmm_encode.c: build requests into s->message; -errno. */
int pmm_encode_operation(struct nl_msg *message, uint16_t family_id, uint32_t sequence, const struct pmm_service *service,
			 const struct pmm_operation *operation);
int pmm_encode_get(struct nl_msg *message, uint16_t family_id, uint32_t sequence, uint8_t command, int flags,
		   const struct pmm_service *service);
int pmm_encode_config(struct nl_msg *message, uint16_t family_id, uint32_t sequence, const struct pmm_config *config);
int pmm_encode_daemon(struct nl_msg *message, uint16_t family_id, uint32_t sequence, uint8_t command,
		      const struct pmm_daemon *daemon);
int pmm_encode_family(struct nl_msg *message, uint32_t sequence, const char *name);

/* pmm_decode.c: bytes and a length, no socket. -EBADMSG for what is malformed. */
struct pmm_message {
	const struct nlmsghdr *header;
	int error;        /* of an NLMSG_ERROR or NLMSG_DONE: 0 or a negative errno */
	const char *text; /* of an NLMSG_ERROR, bounded by text_length, or NULL */
	size_t text_length;
	struct nlattr *attributes; /* of a family message */
	int attributes_length;
};

/* Take the next message off (*bytes, *length): 1, 0 at the end, -EBADMSG. */
int pmm_next_message(const uint8_t **bytes, size_t *length, uint16_t family_id, struct pmm_message *out);
int pmm_decode_service(const struct pmm_message *message, struct pmm_service *service, struct pmm_counters *counters,
		       uint32_t *features);
int pmm_decode_destination(const struct pmm_message *message, uint8_t service_family, struct pmm_destination *destination,
			   struct pmm_counters *counters, uint32_t *features);
int pmm_decode_config(const struct pmm_message *message, struct pmm_config *config);
int pmm_decode_daemon(const struct pmm_message *message, struct pmm_daemon *daemon);
int pmm_decode_family(const struct pmm_message *message, uint16_t *family_id); /* what CTRL_CMD_GETFAMILY is answered with */
int pmm_decode_metric(const struct pmm_message *message, struct pmm_metric *metric);

/* pmm_socket.c */
int pmm_send(struct pmm_socket *s, const void *bytes, size_t length);
int pmm_receive(struct pmm_socket *s, int flags); /* datagrams now in s->received, or -errno */
uint32_t pmm_keep_text(struct pmm_socket *s, const char *text, size_t length);
int pmm_resize(void **array, uint32_t *size, uint32_t wanted, size_t record, uint32_t limit);

/* One request, one answer. `each` sees every family message and may be NULL; the return is its first error, or the kernel's. */
typedef int pmm_each(void *context, const struct pmm_message *message);
int pmm_request(struct pmm_socket *s, pmm_each *each, void *context);

#endif
