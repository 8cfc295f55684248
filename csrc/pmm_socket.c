/* SPDX-License-Identifier: Apache-2.0
 * Sockets: opening them in the right network namespace, sending, and receiving with a deadline. */
#include "pmm_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netlink/genl/ctrl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#ifndef NETLINK_CAP_ACK
#define NETLINK_CAP_ACK 10
#endif
#ifndef NETLINK_EXT_ACK
#define NETLINK_EXT_ACK 11
#endif

void pmm_close(struct pmm_socket *s)
{
	if (!s)
		return;
	if (s->nl)
		nl_socket_free(s->nl);
	else if (s->fd >= 0)
		close(s->fd);
	nlmsg_free(s->message);
	free(s->send_buffer);
	free(s->receive_buffer);
	free(s->texts);
	free(s->services);
	free(s->service_counters);
	free(s->destinations);
	free(s->destination_counters);
	free(s->metrics);
	free(s);
}

/* Everything but the descriptor. */
static struct pmm_socket *allocate(int timeout_ms)
{
	struct pmm_socket *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->fd = -1;
	s->timeout_ms = timeout_ms;
	s->message = nlmsg_alloc_size(PMM_REQUEST_SIZE);
	s->send_buffer = malloc(PMM_SEND_SIZE);
	s->receive_buffer = malloc((size_t)PMM_RECEIVE_SIZE * PMM_RECEIVE_SLOTS);
	s->texts = calloc(1, PMM_TEXTS_SIZE);
	if (!s->message || !s->send_buffer || !s->receive_buffer || !s->texts) {
		pmm_close(s);
		return NULL;
	}
	for (size_t i = 0; i < PMM_RECEIVE_SLOTS; i++)
		s->slots[i].iov_base = s->receive_buffer + i * PMM_RECEIVE_SIZE;
	return s;
}

/* SO_RCVTIMEO gives every wait its deadline without a call of its own: in a loop of 1,000 dumps a poll() before each
 * would be a third of the cost. */
static int prepare(struct pmm_socket *s)
{
	struct timeval timeout = { s->timeout_ms / 1000, (s->timeout_ms % 1000) * 1000 };
	int size = PMM_RECEIVE_BUFFER;
	socklen_t length = sizeof(size);

	if (setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    setsockopt(s->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
		return -errno;
	/* FORCE takes CAP_NET_ADMIN, as IPVS itself does; without it we send fewer requests at a time. */
	if (setsockopt(s->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		(void)setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (getsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &size, &length) < 0)
		return -errno;
	s->requests_max = (uint32_t)size / PMM_BYTES_PER_ACK;
	if (s->requests_max < 1)
		s->requests_max = 1;
	return 0;
}

int pmm_attach(struct pmm_socket **out, int fd, uint16_t family_id, int timeout_ms)
{
	struct pmm_socket *s = allocate(timeout_ms);
	int error;

	*out = NULL;
	if (!s)
		return -ENOMEM;
	s->fd = fd;
	s->family_id = family_id;
	error = prepare(s);
	if (error) {
		s->fd = -1; /* still the caller's */
		pmm_close(s);
		return error;
	}
	*out = s;
	return 0;
}

static int open_here(struct pmm_socket **out, int timeout_ms)
{
	struct pmm_socket *s = allocate(timeout_ms);
	int one = 1;
	int error = -ENOMEM;
	int family;

	*out = NULL;
	if (!s)
		return error;
	s->nl = nl_socket_alloc();
	if (!s->nl)
		goto fail;
	errno = 0;
	if (nl_connect(s->nl, NETLINK_GENERIC) < 0) {
		error = errno ? -errno : -EPROTONOSUPPORT;
		goto fail;
	}
	s->fd = nl_socket_get_fd(s->nl);
	error = prepare(s);
	if (error)
		goto fail;
	/* Asking for the family makes the kernel load ip_vs by its module alias, when we may (CAP_NET_ADMIN). */
	family = genl_ctrl_resolve(s->nl, IPVS_GENL_NAME);
	if (family < 0) {
		error = family == -NLE_OBJ_NOTFOUND ? -EPROTONOSUPPORT : -EIO;
		goto fail;
	}
	s->family_id = (uint16_t)family;
	/* Short acknowledgements, and the kernel's own words where it has any: both refused by old kernels, and not missed. */
	(void)setsockopt(s->fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	(void)setsockopt(s->fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
	*out = s;
	return 0;
fail:
	pmm_close(s);
	return error;
}

/* A socket or file is made in another namespace by a thread that goes there and ends: our own threads never leave
 * theirs, not even when coming back would fail. */
struct errand {
	int netns;
	int timeout_ms;
	const char *path; /* a file to open, or NULL for a socket */
	struct pmm_socket *socket;
	int result;
};

static void run(struct errand *errand)
{
	if (!errand->path) {
		errand->result = open_here(&errand->socket, errand->timeout_ms);
		return;
	}
	errand->result = open(errand->path, O_RDONLY | O_CLOEXEC);
	if (errand->result < 0)
		errand->result = -errno;
}

static void *run_in_namespace(void *argument)
{
	struct errand *errand = argument;

	if (setns(errand->netns, CLONE_NEWNET) < 0)
		errand->result = -errno;
	else
		run(errand);
	return NULL;
}

static int send_on(struct errand *errand)
{
	pthread_t thread;
	int error;

	if (errand->netns < 0) {
		run(errand);
		return errand->result;
	}
	error = pthread_create(&thread, NULL, run_in_namespace, errand);
	if (error)
		return -error;
	pthread_join(thread, NULL);
	return errand->result;
}

int pmm_open(struct pmm_socket **out, int netns, int timeout_ms)
{
	struct errand errand = { .netns = netns, .timeout_ms = timeout_ms };
	int error = send_on(&errand);

	*out = errand.socket;
	return error;
}

int pmm_open_file(int netns, const char *path)
{
	struct errand errand = { .netns = netns, .path = path };

	return send_on(&errand);
}

int pmm_send(struct pmm_socket *s, const void *bytes, size_t length)
{
	for (int interrupts = 0; interrupts < PMM_INTERRUPTS_MAX; interrupts++) {
		ssize_t sent = send(s->fd, bytes, length, MSG_NOSIGNAL);

		s->system_calls++;
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

int pmm_receive(struct pmm_socket *s, int flags)
{
	for (size_t i = 0; i < PMM_RECEIVE_SLOTS; i++) {
		s->slots[i].iov_len = PMM_RECEIVE_SIZE;
		s->received[i].msg_hdr = (struct msghdr){ .msg_iov = &s->slots[i], .msg_iovlen = 1 };
		if (s->nl) {
			s->received[i].msg_hdr.msg_name = &s->senders[i];
			s->received[i].msg_hdr.msg_namelen = sizeof(s->senders[i]);
		}
	}
	for (int interrupts = 0; interrupts < PMM_INTERRUPTS_MAX; interrupts++) {
		int count = recvmmsg(s->fd, s->received, PMM_RECEIVE_SLOTS, MSG_WAITFORONE | flags, NULL);

		s->system_calls++;
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? -ETIMEDOUT : -errno;
		for (int i = 0; i < count; i++) {
			if (s->received[i].msg_hdr.msg_flags & MSG_TRUNC)
				return -EBADMSG;
			/* An end of file, or a datagram that is not the kernel's. */
			if (!s->nl && s->received[i].msg_len == 0)
				return -ECONNRESET;
			if (s->nl && s->senders[i].nl_pid != 0)
				s->received[i].msg_len = 0;
		}
		return count;
	}
	return -EINTR;
}

uint32_t pmm_keep_text(struct pmm_socket *s, const char *text, size_t length)
{
	uint32_t at = s->texts_used;

	if (length > PMM_TEXT_SIZE - 1)
		length = PMM_TEXT_SIZE - 1;
	if (!text || length == 0 || at + length + 1 > PMM_TEXTS_SIZE)
		return 0;
	memcpy(s->texts + at, text, length);
	s->texts[at + length] = '\0';
	s->texts_used = at + (uint32_t)length + 1;
	return at;
}

const char *pmm_text(const struct pmm_socket *s, uint32_t text)
{
	return text < PMM_TEXTS_SIZE ? s->texts + text : "";
}

uint64_t pmm_system_calls(const struct pmm_socket *s)
{
	return s->system_calls;
}

int pmm_resize(void **array, uint32_t *size, uint32_t wanted, size_t record, uint32_t limit)
{
	uint32_t larger = *size ? *size : 64;
	void *moved;

	if (wanted <= *size)
		return 0;
	if (wanted > limit)
		return -EMSGSIZE;
	while (larger < wanted)
		larger *= 2;
	moved = realloc(*array, larger * record);
	if (!moved)
		return -ENOMEM;
	*array = moved;
	*size = larger;
	return 0;
}
