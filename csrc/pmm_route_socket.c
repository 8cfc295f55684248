/* SPDX-License-Identifier: Apache-2.0
 * Routing sockets: opening them in the right network namespace, sending, and collecting answers. */
#include "pmm_route_internal.h"

#include <netlink/errno.h>
#include <netlink/msg.h>
#include <pthread.h>
#include <sched.h>
#include <sys/time.h>

int pmm_from_libnl(int error)
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

ssize_t pmm_route_receive(struct pmm_route_socket *s)
{
	for (int interrupts = 0; interrupts < PMM_ROUTE_INTERRUPTS_MAX; interrupts++) {
		struct sockaddr_nl sender;
		struct iovec slot = { s->receive_buffer, PMM_ROUTE_RECEIVE_SIZE };
		struct msghdr message = {
			.msg_name = &sender, .msg_namelen = sizeof(sender), .msg_iov = &slot, .msg_iovlen = 1
		};
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

int pmm_route_send(struct pmm_route_socket *s, size_t length)
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

int64_t pmm_route_enqueue(struct pmm_route_socket *s, struct nl_msg *message, size_t *length)
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

int pmm_route_collect(struct pmm_route_socket *s, uint32_t first, uint32_t count, int32_t *errors)
{
	uint32_t seen = 0;

	for (int strays = 0; seen < count && strays < PMM_ROUTE_STRAYS_MAX; strays++) {
		ssize_t length = pmm_route_receive(s);

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

int pmm_route_request(struct pmm_route_socket *s, struct nl_msg *message)
{
	size_t length = 0;
	int64_t sequence = pmm_route_enqueue(s, message, &length);
	int32_t answer = -ENODATA;
	int error;

	if (sequence < 0)
		return (int)sequence;
	error = pmm_route_send(s, length);
	if (!error)
		error = pmm_route_collect(s, (uint32_t)sequence, 1, &answer);
	return error ? error : answer;
}
