/* SPDX-License-Identifier: Apache-2.0
 * Many operations in one send.
 *
 * Requests are packed into datagrams; only the last of each asks for an acknowledgement. IPVS carries a datagram out
 * before send() returns, does not stop at an error, and answers each error with the request's sequence number, all
 * before that last acknowledgement. So: an operation without an error, whose datagram was acknowledged, was done.
 * A datagram holds no more requests than our receive buffer holds errors, so that none is lost (ENOBUFS); if one is lost
 * all the same, or the acknowledgement stays away, the outcome of those operations is -ENODATA: not known. */
#include "pmm_internal.h"

#include <errno.h>
#include <string.h>

/* What was received and not yet looked at. Starts as zero. */
struct inbox {
	int count, at;
	const uint8_t *bytes;
	size_t length;
	uint32_t strays; /* messages of requests that were given up */
};

/* The next message that answers one of `count` requests from `first` on, received if need be: 0, or a negative errno. */
static int next_answer(struct pmm_socket *s, struct inbox *inbox, uint32_t first, uint32_t count, struct pmm_message *out)
{
	while (inbox->strays < PMM_STRAYS_MAX) {
		int more = pmm_next_message(&inbox->bytes, &inbox->length, s->family_id, out);

		if (more < 0)
			return more;
		if (more && out->header->nlmsg_seq - first < count)
			return 0;
		if (more) {
			inbox->strays++;
			continue;
		}
		if (inbox->at == inbox->count) {
			inbox->count = pmm_receive(s, 0);
			inbox->at = 0;
			if (inbox->count < 0)
				return inbox->count;
		}
		inbox->bytes = s->slots[inbox->at].iov_base;
		inbox->length = s->received[inbox->at++].msg_len;
	}
	return -EBADMSG;
}

int pmm_request(struct pmm_socket *s, pmm_each *each, void *context)
{
	struct nlmsghdr *header = nlmsg_hdr(s->message);
	bool single = !(header->nlmsg_flags & (NLM_F_ACK | NLM_F_DUMP)); /* answered by one message, or an error */
	bool interrupted = false;
	int error = pmm_send(s, header, header->nlmsg_len);
	struct inbox inbox = { 0 };
	struct pmm_message message;

	while (!error) {
		error = next_answer(s, &inbox, header->nlmsg_seq, 1, &message);
		if (error)
			break;
		interrupted = interrupted || (message.header->nlmsg_flags & NLM_F_DUMP_INTR);
		if (message.header->nlmsg_type == NLMSG_ERROR || message.header->nlmsg_type == NLMSG_DONE) {
			if (message.error && message.text) {
				s->texts_used = 0; /* the place of text 0 */
				(void)pmm_keep_text(s, message.text, message.text_length);
			}
			return message.error ? message.error : interrupted ? -EINTR : 0;
		}
		/* A row that cannot be taken ends the reading, for the dump may be endless; the socket is then of no more use.
		 */
		if (message.attributes && each)
			error = each(context, &message);
		if (message.attributes && single)
			break;
	}
	return error;
}

/* The errors of one datagram, until the acknowledgement of its last request. */
static int collect(struct pmm_socket *s, uint32_t first, uint32_t count, struct pmm_outcome *outcomes)
{
	struct inbox inbox = { 0 };
	struct pmm_message message;
	uint32_t index = 0;

	do {
		int error = next_answer(s, &inbox, first, count, &message);

		if (error)
			return error;
		index = message.header->nlmsg_seq - first;
		if (message.error) {
			outcomes[index].error = message.error;
			outcomes[index].text = pmm_keep_text(s, message.text, message.text_length);
		}
	} while (message.header->nlmsg_type != NLMSG_ERROR || index != count - 1);
	return 0;
}

/* Clear away what is left of the answers after some were lost. */
static void clear(struct pmm_socket *s)
{
	for (int i = 0; i < PMM_INTERRUPTS_MAX && pmm_receive(s, MSG_DONTWAIT) > 0; i++)
		;
}

static void fail(struct pmm_outcome *outcomes, uint32_t from, uint32_t to, int error)
{
	for (uint32_t i = from; i < to; i++)
		if (!outcomes[i].error)
			outcomes[i].error = error;
}

int pmm_apply(struct pmm_socket *s, const struct pmm_service *services, uint32_t service_count,
	      const struct pmm_operation *operations, uint32_t count, struct pmm_outcome *outcomes, int stop_on_error)
{
	uint32_t most = stop_on_error ? 1 : s->requests_max;
	uint32_t done = 0;
	int failed = 0;
	int broken = 0;

	memset(outcomes, 0, count * sizeof(*outcomes));
	s->texts_used = PMM_TEXT_SIZE; /* text 0 is kept for failed calls */
	while (done < count && !broken) {
		uint32_t begin = done;
		uint32_t first = s->sequence + 1;
		size_t used = 0;
		struct nlmsghdr *last = NULL;
		int error = 0;

		while (done < count && done - begin < most && used + PMM_REQUEST_SIZE <= PMM_SEND_SIZE) {
			const struct pmm_operation *operation = &operations[done];
			const struct pmm_service *service =
				operation->service < service_count ? &services[operation->service] : NULL;

			error = pmm_encode_operation(s->message, s->family_id, first + (done - begin), service, operation);
			if (error)
				break;
			last = (struct nlmsghdr *)(void *)(s->send_buffer + used);
			memcpy(last, nlmsg_hdr(s->message), nlmsg_hdr(s->message)->nlmsg_len);
			used += NLMSG_ALIGN((size_t)last->nlmsg_len);
			done++;
		}
		if (last) {
			int lost;

			last->nlmsg_flags |= NLM_F_ACK;
			s->sequence += done - begin;
			broken = pmm_send(s, s->send_buffer, used);
			fail(outcomes, begin, done, broken);
			lost = broken ? 0 : collect(s, first, done - begin, outcomes + begin);
			fail(outcomes, begin, done, lost ? -ENODATA : 0);
			/* After an overrun the kernel has still done its part, and the next datagram may go. */
			if (lost == -ENOBUFS)
				clear(s);
			else if (lost)
				broken = lost;
		}
		if (error) /* one that cannot even be written down */
			outcomes[done++].error = error;
		if (stop_on_error)
			for (uint32_t i = begin; i < done && !broken; i++)
				broken = outcomes[i].error != 0;
	}
	fail(outcomes, done, count, -ECANCELED);
	for (uint32_t i = 0; i < count; i++)
		failed += outcomes[i].error != 0;
	return failed;
}
