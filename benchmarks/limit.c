/* SPDX-License-Identifier: Apache-2.0
 * The limit: the least that any program must do to change or to read an IPVS table through generic netlink.
 *
 * It knows the benchmark's tables by arithmetic (see workloads.py), so it has nothing to compare and nothing to decode.
 * Changes are the engine's own messages, copied from a template and patched, packed into datagrams of 64 KiB, with an
 * acknowledgement of each datagram's last. A dump is send and recvmmsg until NLMSG_DONE, the rows counted by their headers.
 *
 * A server, so that its memory is as warm as the other peers': a command a line on stdin, one line of JSON each on stdout.
 *
 *   fresh               go to a network namespace of our own, empty, lo up; open the socket
 *   join PID            go to that process's namespace; open the socket
 *   home                go back to the namespace we started in
 *   load S P            add S services with P destinations each
 *   delta COUNT STEP    remove every STEPth destination of service 0, COUNT of them, then add them again: two batches
 *   weights S P STEP A  add A to the weight of every STEPth destination of the whole table
 *   dump                read it all
 *   single S P          as load, a request and its acknowledgement at a time (for --noop)
 *   lookup COUNT        so many times: open a socket, look a family up, send a request, close (for --noop)
 *   syscall COUNT       so many getppid calls
 *
 * With --noop the messages are of type NLMSG_NOOP, which any kernel acknowledges without doing anything: what is left is
 * the cost of building, of system calls, of netlink. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/genetlink.h>
#include <linux/ip_vs.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
	ATTRIBUTE = sizeof(struct nlattr), /* NLA_HDRLEN, without its mix of signs */
	DATAGRAM = 64 * 1024,
	SLOT = 32 * 1024, /* the kernel makes no longer dump datagrams */
	SLOTS = 16,
	RECEIVE_BUFFER = 1024 * 1024,
	SERVICES_MAX = 4096,
	SERVICE_ADDRESS = 0x0a000001,    /* 10.0.0.1 and up, port 80 */
	DESTINATION_ADDRESS = 0xac100001 /* 172.16.0.1 and up, port 8080 */
};

struct template {
	uint8_t bytes[256];
	uint32_t length;
	uint32_t service_address, address, weight; /* where to patch; 0: nowhere */
};

static struct template add_service, add_destination, set_destination, delete_destination, get_destinations;
static uint8_t send_buffer[DATAGRAM], receive_buffer[SLOTS][SLOT], keys[SERVICES_MAX][44];
static struct mmsghdr received[SLOTS];
static struct iovec slots[SLOTS];
static int fd = -1;
static uint16_t family = NLMSG_NOOP;
static uint32_t sequence;
static unsigned long system_calls, errors;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* Templates */

static uint32_t aligned(uint32_t size)
{
	return (size + 3) & ~3U;
}

static void put(struct template *t, uint16_t type, const void *data, uint16_t size)
{
	struct nlattr attribute = { (uint16_t)(ATTRIBUTE + size), type };

	memcpy(t->bytes + t->length, &attribute, sizeof(attribute));
	memcpy(t->bytes + t->length + ATTRIBUTE, data, size);
	t->length += ATTRIBUTE + aligned(size);
}

static void put16(struct template *t, uint16_t type, uint16_t value)
{
	put(t, type, &value, sizeof(value));
}

static void put32(struct template *t, uint16_t type, uint32_t value)
{
	put(t, type, &value, sizeof(value));
}

static uint32_t open_nest(struct template *t, uint16_t type)
{
	uint32_t at = t->length;

	put(t, type | NLA_F_NESTED, "", 0);
	return at;
}

static void close_nest(struct template *t, uint32_t at)
{
	((struct nlattr *)(void *)(t->bytes + at))->nla_len = (uint16_t)(t->length - at);
}

static void make(struct template *t, uint8_t command, uint16_t flags, int whole_service, int destination)
{
	static const uint8_t address[16];
	struct nlmsghdr *header = (void *)t->bytes;
	struct genlmsghdr *generic = (void *)(t->bytes + NLMSG_HDRLEN);
	struct ip_vs_flags service_flags = { 0, ~0U };
	uint32_t nest;

	memset(t, 0, sizeof(*t));
	header->nlmsg_type = family;
	header->nlmsg_flags = NLM_F_REQUEST | flags;
	generic->cmd = command;
	generic->version = IPVS_GENL_VERSION;
	t->length = NLMSG_HDRLEN + GENL_HDRLEN;
	nest = open_nest(t, IPVS_CMD_ATTR_SERVICE);
	put16(t, IPVS_SVC_ATTR_AF, AF_INET);
	put16(t, IPVS_SVC_ATTR_PROTOCOL, IPPROTO_TCP);
	t->service_address = t->length + ATTRIBUTE;
	put(t, IPVS_SVC_ATTR_ADDR, address, sizeof(address));
	put16(t, IPVS_SVC_ATTR_PORT, htons(80));
	if (whole_service) {
		put(t, IPVS_SVC_ATTR_SCHED_NAME, "wlc", 4);
		put(t, IPVS_SVC_ATTR_FLAGS, &service_flags, sizeof(service_flags));
		put32(t, IPVS_SVC_ATTR_TIMEOUT, 0);
		put32(t, IPVS_SVC_ATTR_NETMASK, ~0U);
	}
	close_nest(t, nest);
	if (destination) {
		nest = open_nest(t, IPVS_CMD_ATTR_DEST);
		t->address = t->length + ATTRIBUTE;
		put(t, IPVS_DEST_ATTR_ADDR, address, sizeof(address));
		put16(t, IPVS_DEST_ATTR_PORT, htons(8080));
		put16(t, IPVS_DEST_ATTR_ADDR_FAMILY, AF_INET);
		if (destination > 1) {
			put32(t, IPVS_DEST_ATTR_FWD_METHOD, IP_VS_CONN_F_MASQ);
			t->weight = t->length + ATTRIBUTE;
			put32(t, IPVS_DEST_ATTR_WEIGHT, 0);
			put32(t, IPVS_DEST_ATTR_U_THRESH, 0);
			put32(t, IPVS_DEST_ATTR_L_THRESH, 0);
		}
		close_nest(t, nest);
	}
	header->nlmsg_len = t->length;
}

static void make_templates(void)
{
	make(&add_service, IPVS_CMD_NEW_SERVICE, 0, 1, 0);
	make(&add_destination, IPVS_CMD_NEW_DEST, 0, 0, 2);
	make(&set_destination, IPVS_CMD_SET_DEST, 0, 0, 2);
	make(&delete_destination, IPVS_CMD_DEL_DEST, 0, 0, 1);
	make(&get_destinations, IPVS_CMD_GET_DEST, NLM_F_DUMP, 0, 0);
}

/* Sending and receiving */

static void send_all(const void *bytes, size_t length)
{
	system_calls++;
	if (send(fd, bytes, length, 0) != (ssize_t)length)
		die("send");
}

static int receive(void)
{
	int count;

	for (int i = 0; i < SLOTS; i++) {
		slots[i] = (struct iovec){ receive_buffer[i], SLOT };
		received[i].msg_hdr = (struct msghdr){ .msg_iov = &slots[i], .msg_iovlen = 1 };
	}
	system_calls++;
	count = recvmmsg(fd, received, SLOTS, MSG_WAITFORONE, NULL);
	if (count < 0)
		die("recvmmsg");
	return count;
}

/* Acknowledgements until that of the last request. */
static void acknowledged(void)
{
	for (;;) {
		int count = receive(), last = 0;

		for (int i = 0; i < count; i++) {
			const struct nlmsghdr *header = (const void *)receive_buffer[i];

			if (header->nlmsg_type != NLMSG_ERROR)
				continue;
			errors += ((const struct nlmsgerr *)NLMSG_DATA(header))->error != 0;
			last = last || header->nlmsg_seq == sequence;
		}
		if (last)
			return;
	}
}

static uint32_t used;
static struct nlmsghdr *last;

static void flush_requests(void)
{
	if (!used)
		return;
	last->nlmsg_flags |= NLM_F_ACK;
	send_all(send_buffer, used);
	acknowledged();
	used = 0;
}

static uint8_t *request(const struct template *t, uint32_t service)
{
	uint8_t *at;
	uint32_t address = htonl(SERVICE_ADDRESS + service);

	if (used + t->length > DATAGRAM)
		flush_requests();
	at = send_buffer + used;
	used += t->length;
	memcpy(at, t->bytes, t->length);
	memcpy(at + t->service_address, &address, sizeof(address));
	last = (void *)at;
	last->nlmsg_seq = ++sequence;
	return at;
}

static void change(const struct template *t, uint32_t service, uint32_t destination, uint32_t more_weight)
{
	uint8_t *at = request(t, service);
	uint32_t address = htonl(DESTINATION_ADDRESS + destination), weight = 1 + destination % 9 + more_weight;

	memcpy(at + t->address, &address, sizeof(address));
	if (t->weight)
		memcpy(at + t->weight, &weight, sizeof(weight));
}

/* Read datagrams until NLMSG_DONE; rows are counted, and the keys of services kept when `services`. */
static uint32_t rows(int services)
{
	uint32_t found = 0;

	for (;;) {
		int count = receive();

		for (int i = 0; i < count; i++) {
			uint32_t length = received[i].msg_len;
			const struct nlmsghdr *header = (const void *)receive_buffer[i];

			for (; NLMSG_OK(header, length); header = NLMSG_NEXT(header, length)) {
				if (header->nlmsg_type == NLMSG_DONE)
					return found;
				if (header->nlmsg_type == NLMSG_ERROR)
					die("dump");
				/* The kernel puts family, protocol, address and port first: the key as we ask by it. */
				if (services && found < SERVICES_MAX)
					memcpy(keys[found], (const uint8_t *)NLMSG_DATA(header) + GENL_HDRLEN + ATTRIBUTE,
					       sizeof(keys[0]));
				found++;
			}
		}
	}
}

static uint32_t dump(uint32_t *services)
{
	struct {
		struct nlmsghdr header;
		struct genlmsghdr generic;
	} all = { { sizeof(all), family, NLM_F_REQUEST | NLM_F_DUMP, ++sequence, 0 },
		  { IPVS_CMD_GET_SERVICE, IPVS_GENL_VERSION, 0 } };
	struct nlmsghdr *one = (void *)get_destinations.bytes;
	uint32_t destinations = 0;

	send_all(&all, sizeof(all));
	*services = rows(1);
	for (uint32_t i = 0; i < *services; i++) {
		memcpy(get_destinations.bytes + NLMSG_HDRLEN + GENL_HDRLEN + ATTRIBUTE, keys[i], sizeof(keys[i]));
		one->nlmsg_seq = ++sequence;
		send_all(one, one->nlmsg_len);
		destinations += rows(0);
	}
	return destinations;
}

/* Namespaces and the socket */

static uint16_t look_up(const char *name)
{
	struct template t = { .length = NLMSG_HDRLEN + GENL_HDRLEN };
	struct nlmsghdr *header = (void *)t.bytes;
	const struct nlattr *attribute = (const void *)(receive_buffer[0] + NLMSG_HDRLEN + GENL_HDRLEN);

	*header = (struct nlmsghdr){ 0, GENL_ID_CTRL, NLM_F_REQUEST, ++sequence, 0 };
	*(struct genlmsghdr *)NLMSG_DATA(header) = (struct genlmsghdr){ CTRL_CMD_GETFAMILY, 1, 0 };
	put(&t, CTRL_ATTR_FAMILY_NAME, name, (uint16_t)(strlen(name) + 1));
	header->nlmsg_len = t.length;
	send_all(t.bytes, t.length);
	receive();
	header = (void *)receive_buffer[0];
	if (header->nlmsg_type == NLMSG_ERROR)
		return 0;
	while (attribute->nla_type != CTRL_ATTR_FAMILY_ID)
		attribute = (const void *)((const uint8_t *)attribute + aligned(attribute->nla_len));
	return *(const uint16_t *)(const void *)(attribute + 1);
}

static void open_socket(void)
{
	struct sockaddr_nl own = { .nl_family = AF_NETLINK };

	if (fd >= 0)
		close(fd);
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	if (fd < 0 || bind(fd, (struct sockaddr *)&own, sizeof(own)) < 0)
		die("netlink socket");
}

static void prepare_socket(void)
{
	int size = RECEIVE_BUFFER, one = 1;

	open_socket();
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	(void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	if (family != NLMSG_NOOP) {
		family = look_up(IPVS_GENL_NAME);
		if (!family)
			die("this kernel has no IPVS");
	}
	make_templates();
}

static void fresh(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int any;

	if (unshare(CLONE_NEWNET) < 0)
		die("unshare");
	any = socket(AF_INET, SOCK_DGRAM, 0);
	if (any < 0 || ioctl(any, SIOCSIFFLAGS, &lo) < 0)
		die("lo");
	close(any);
	prepare_socket();
}

static void enter(const char *path)
{
	int netns = open(path, O_RDONLY | O_CLOEXEC);

	if (netns < 0 || setns(netns, CLONE_NEWNET) < 0)
		die(path);
	close(netns);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int run(const char *line, uint32_t *services, uint32_t *destinations)
{
	uint32_t a, b, c, d;

	if (sscanf(line, "load %u %u", &a, &b) == 2) {
		for (uint32_t s = 0; s < a; s++)
			request(&add_service, s);
		for (uint32_t n = 0; n < a * b; n++)
			change(&add_destination, n / b, n, 0);
		flush_requests();
	} else if (sscanf(line, "single %u %u", &a, &b) == 2) {
		for (uint32_t s = 0; s < a; s++) {
			request(&add_service, s);
			flush_requests();
		}
		for (uint32_t n = 0; n < a * b; n++) {
			change(&add_destination, n / b, n, 0);
			flush_requests();
		}
	} else if (sscanf(line, "delta %u %u", &a, &b) == 2) {
		for (uint32_t i = 0; i < a; i++)
			change(&delete_destination, 0, i * b, 0);
		flush_requests();
		for (uint32_t i = 0; i < a; i++)
			change(&add_destination, 0, i * b, 0);
		flush_requests();
	} else if (sscanf(line, "weights %u %u %u %u", &a, &b, &c, &d) == 4) {
		for (uint32_t n = 0; n < a * b; n += c)
			change(&set_destination, n / b, n, d);
		flush_requests();
	} else if (sscanf(line, "lookup %u", &a) == 1) {
		for (uint32_t i = 0; i < a; i++) {
			open_socket();
			look_up("nlctrl");
			change(&add_destination, 0, i, 0);
			flush_requests();
		}
	} else if (sscanf(line, "syscall %u", &a) == 1) {
		for (uint32_t i = 0; i < a; i++)
			syscall(SYS_getppid);
	} else if (strcmp(line, "dump") == 0) {
		*destinations = dump(services);
	} else {
		return -1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	char line[256], path[64];
	int noop = argc > 1 && strcmp(argv[1], "--noop") == 0, home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	family = noop ? NLMSG_NOOP : 0;
	if (noop)
		prepare_socket();
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		uint32_t services = 0, destinations = 0;
		uint32_t first = sequence;
		double began, seconds;
		int pid;

		line[strcspn(line, "\n")] = '\0';
		if (strcmp(line, "fresh") == 0) {
			fresh();
			printf("{}\n");
			continue;
		}
		if (strcmp(line, "home") == 0) {
			close(fd);
			fd = -1;
			if (setns(home, CLONE_NEWNET) < 0)
				die("home");
			printf("{}\n");
			continue;
		}
		if (sscanf(line, "join %d", &pid) == 1) {
			snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
			enter(path);
			prepare_socket();
			printf("{}\n");
			continue;
		}
		errors = system_calls = 0;
		began = now();
		if (run(line, &services, &destinations) < 0) {
			fprintf(stderr, "limit: cannot read: %s\n", line);
			return 2;
		}
		seconds = now() - began;
		printf("{\"seconds\": %.9f, \"system_calls\": %lu, \"requests\": %u, \"errors\": %lu, \"services\": %u, "
		       "\"destinations\": %u}\n",
		       seconds, system_calls, sequence - first, errors, services, destinations);
	}
	return 0;
}
