/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole boundary between Python and the kernel's IPVS. cffi parses this very file (its preprocessor lines
 * taken out), so it is plain C99: fixed-width integers, flat arrays, no macros.
 *
 * Rules
 *  - Crossed once a batch. Nothing here calls back; cffi drops the GIL for the length of a call.
 *  - Functions return 0 (or a count) or a negative errno. A record is never half filled on an error.
 *  - Addresses and ports inside a key are in network order, so that keys sort and compare with memcmp; every other
 *    number is in host order. Unused bytes are zero: whole records may be compared with memcmp too.
 *  - Destinations are flat: `pmm_service.destinations` of them belong to each service, in the services' order,
 *    sorted by their key.
 *  - Names and numbers are those of linux/ip_vs.h.
 */
#ifndef PMM_IPVS_H
#define PMM_IPVS_H

#include <stddef.h>
#include <stdint.h>

enum pmm_sizes { PMM_SERVICE_KEY_SIZE = 24, PMM_DESTINATION_KEY_SIZE = 20, PMM_TEXT_SIZE = 128 };

/* A virtual service. The first 24 bytes are its key. */
struct pmm_service {
	uint8_t by_mark;  /* 0: address and port; 1: firewall mark. Marks sort last, as ipvsadm lists them. */
	uint8_t family;   /* AF_INET or AF_INET6 */
	uint8_t protocol; /* IPPROTO_TCP, _UDP, _SCTP; 0 with a mark */
	uint8_t reserved;
	uint8_t address[16]; /* IPv4 in the first four; a mark, big endian, likewise */
	uint8_t port[2];
	uint8_t reserved_too[2];
	char scheduler[16]; /* IP_VS_SCHEDNAME_MAXLEN */
	char engine[16];    /* persistence engine, IP_VS_PENAME_MAXLEN; empty for none */
	uint32_t flags;     /* IP_VS_SVC_F_*, without HASHED */
	uint32_t timeout;   /* of persistence, seconds; 0 when not persistent */
	uint8_t netmask[4]; /* IPv4: the mask in network order; IPv6: the prefix length in the last byte */
	uint32_t destinations;
};

/* A real server. The first 20 bytes are its key within its service. */
struct pmm_destination {
	uint8_t family;
	uint8_t reserved;
	uint8_t address[16];
	uint8_t port[2];
	uint32_t weight;
	uint32_t upper_threshold;
	uint32_t lower_threshold;
	uint8_t forwarding;  /* IP_VS_CONN_F_FWD_MASK bits */
	uint8_t tunnel_type; /* IP_VS_CONN_F_TUNNEL_TYPE_* */
	uint16_t tunnel_port;
	uint16_t tunnel_flags;
	uint16_t reserved_too;
};

/* Counters since the row was made or zeroed, and the kernel's own rates a second. */
struct pmm_counters {
	uint64_t connections, in_packets, out_packets, in_bytes, out_bytes;
	uint64_t connection_rate, in_packet_rate, out_packet_rate, in_byte_rate, out_byte_rate;
	uint32_t active, inactive, persistent, reserved; /* connections now; destinations only */
};

/* What the kernel was seen to answer with: an attribute that it never sends it does not know. */
enum pmm_features {
	PMM_FEATURE_STATS64 = 1,        /* counters of 64 bits */
	PMM_FEATURE_ADDRESS_FAMILY = 2, /* destinations of another family than their service's */
	PMM_FEATURE_TUNNEL = 4,         /* tunnel types other than ipip, and their port */
	PMM_FEATURE_TUNNEL_FLAGS = 8    /* tunnel checksums */
};

enum pmm_dump_flags {
	PMM_DUMP_COUNTERS = 1,    /* fill the counters too */
	PMM_DUMP_KERNEL_ORDER = 2 /* leave destinations as the kernel lists them */
};

/* A dump. The arrays belong to the socket, and hold until its next dump or its end. */
struct pmm_table {
	const struct pmm_service *services;
	const struct pmm_destination *destinations;
	const struct pmm_counters *service_counters;
	const struct pmm_counters *destination_counters;
	uint32_t service_count;
	uint32_t destination_count;
	uint32_t features;
	uint32_t has_services; /* whether `features` had rows to be seen in */
	uint32_t has_destinations;
};

/* One change. ZERO and FLUSH of the whole table take no service (UINT32_MAX). */
struct pmm_operation {
	uint8_t command; /* IPVS_CMD_* */
	uint8_t reserved[3];
	uint32_t service; /* index into the services handed over with the operations */
	struct pmm_destination destination;
};

/* What became of one operation. */
struct pmm_outcome {
	int32_t error; /* 0, or a negative errno; -ENODATA when its answer was lost and so is not known */
	uint32_t text; /* 0, or where pmm_text() finds the kernel's own words */
};

struct pmm_config {
	uint32_t version;                                   /* IP_VS_VERSION_CODE: 0x10201 is 1.2.1 */
	uint32_t table_size;                                /* of the connection hash table */
	uint32_t tcp_timeout, tcp_fin_timeout, udp_timeout; /* seconds */
};

/* The connection synchronisation daemon. */
struct pmm_daemon {
	uint32_t state; /* 1 master, 2 backup */
	uint32_t sync_id;
	uint16_t sync_maxlen;
	uint16_t port;
	uint8_t ttl;
	uint8_t group_family; /* 0 for the kernel's default group */
	uint8_t reserved[2];
	uint8_t group[16];
	char interface[16]; /* IP_VS_IFNAME_MAXLEN */
};

/* What the kernel remembers of TCP connections of this host to one address (tcp_metrics). */
struct pmm_metric {
	uint8_t family; /* AF_INET or AF_INET6 */
	uint8_t reserved[3];
	uint8_t address[16]; /* of the other end */
	uint32_t age_ms;
	uint32_t rtt;       /* smoothed round trip, in eighths of a microsecond; 0 when not known */
	uint32_t deviation; /* its mean deviation, in quarters of a microsecond; 0 when not known */
};

struct pmm_socket;

/* Open a socket to IPVS, in the network namespace of `netns` (a file descriptor; -1: this thread's). `timeout_ms` bounds
 * every single wait. -EPROTONOSUPPORT: this kernel has no IPVS, nor a module of that name. */
int pmm_open(struct pmm_socket **out, int netns, int timeout_ms);

/* The same over a socket that somebody else opened, whose peer plays the kernel: for tests. Takes `fd` over. */
int pmm_attach(struct pmm_socket **out, int fd, uint16_t family_id, int timeout_ms);

void pmm_close(struct pmm_socket *s);

/* Read the table; with `only` (a key) just that service, -ESRCH if it is not there.
 * -EINTR: the table changed during five reads running. -ETIMEDOUT, -ENOBUFS, -EBADMSG, -EMSGSIZE, -ENOMEM: the
 * socket is of no more use. */
int pmm_dump(struct pmm_socket *s, const struct pmm_service *only, uint32_t flags, struct pmm_table *out);

/* Carry out `count` operations in order, packed, and tell the outcome of each. An operation that fails does not stop
 * those behind it, unless `stop_on_error`: then the rest have -ECANCELED. Returns the number that failed. */
int pmm_apply(struct pmm_socket *s, const struct pmm_service *services, uint32_t service_count,
	      const struct pmm_operation *operations, uint32_t count, struct pmm_outcome *outcomes, int stop_on_error);

/* The kernel's text of an outcome of the last pmm_apply, or of the last failed call (`text` 0). Never NULL. */
const char *pmm_text(const struct pmm_socket *s, uint32_t text);

int pmm_get_config(struct pmm_socket *s, struct pmm_config *out);
int pmm_set_config(struct pmm_socket *s, const struct pmm_config *config); /* the timeouts; 0 leaves one as it is */

int pmm_get_daemons(struct pmm_socket *s, struct pmm_daemon out[2]); /* how many there are */
int pmm_start_daemon(struct pmm_socket *s, const struct pmm_daemon *daemon);
int pmm_stop_daemon(struct pmm_socket *s, const struct pmm_daemon *daemon);

/* All rows of tcp_metrics in the socket's namespace, in *out: how many. The array belongs to the socket, until the next such
 * call or its end. -ENOENT: this kernel has no such family. */
int pmm_get_metrics(struct pmm_socket *s, const struct pmm_metric **out);

/* How many send and receive calls this socket has made: what benchmarks divide by. */
uint64_t pmm_system_calls(const struct pmm_socket *s);

/* Open `path` for reading as seen in the network namespace of `netns`; the descriptor. */
int pmm_open_file(int netns, const char *path);

/* The operations that turn `current` into `desired`, both sorted by key, in the order in which they are safe (see plan.py).
 * Returns how many there are; -ENOSPC, and nothing written, when they are more than `capacity`. The `service` of an
 * operation counts through `desired` first, then `current`. */
int64_t pmm_diff(const struct pmm_service *current, uint32_t current_count, const struct pmm_destination *current_destinations,
		 const struct pmm_service *desired, uint32_t desired_count, const struct pmm_destination *desired_destinations,
		 struct pmm_operation *out, uint32_t capacity);

#endif
