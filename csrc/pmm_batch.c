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

int pmm_request(struct pmm_socket *s, pmm_each *each, void *context)
{
	struct nlmsghdr *header = nlmsg_hdr(s->message);
	bool dump = (header->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
	bool acknowledged = header->nlmsg_flags & NLM_F_ACK;
	bool interrupted = false;
	int first_error = 0;
	int error = pmm_send(s, header, header->nlmsg_len);

	while (!error) {
		int count = pmm_receive(s, 0);

		if (count < 0)
			return count;
		for (int i = 0; i < count; i++) {
			const uint8_t *bytes = s->slots[i].iov_base;
			size_t length = s->received[i].msg_len;
			struct pmm_message message;
			int more;

			while ((more = pmm_next_message(&bytes, &length, s->family_id, &message)) > 0) {
				if (message.header->nlmsg_seq != header->nlmsg_seq)
					continue; /* the tail of a request that was given up */
				if (message.header->nlmsg_flags & NLM_F_DUMP_INTR)
					interrupted = true;
				if (message.header->nlmsg_type == NLMSG_ERROR) {
					if (message.error && message.text) {
						size_t size = message.text_length < PMM_TEXT_SIZE - 1 ? message.text_length :
												PMM_TEXT_SIZE - 1;
						memcpy(s->texts, message.text, size);
						s->texts[size] = '\0';
					}
					return message.error ? message.error : first_error;
				}
				if (message.header->nlmsg_type == NLMSG_DONE) {
					if (message.error)
						return message.error;
					return first_error ? first_error : interrupted ? -EINTR : 0;
				}
				if (message.attributes && each && !first_error)
					first_error = each(context, &message);
				if (message.attributes && !dump && !acknowledged)
					return first_error;
			}
			if (more < 0)
				return more;
		}
	}
	return error;
}

/* The errors of one datagram, until the acknowledgement of its last request. */
static int collect(struct pmm_socket *s, uint32_t first, uint32_t count, struct pmm_outcome *outcomes)
{
	for (;;) {
		int datagrams = pmm_receive(s, 0);

		if (datagrams < 0)
			return datagrams;
		for (int i = 0; i < datagrams; i++) {
			const uint8_t *bytes = s->slots[i].iov_base;
			size_t length = s->received[i].msg_len;
			struct pmm_message message;
			bool last = false;
			int more;

			while ((more = pmm_next_message(&bytes, &length, s->family_id, &message)) > 0) {
				uint32_t index = message.header->nlmsg_seq - first;

				if (message.header->nlmsg_type != NLMSG_ERROR || index >= count)
					continue;
				if (message.error) {
					outcomes[index].error = message.error;
					outcomes[index].text = pmm_keep_text(s, message.text, message.text_length);
				}
				last = last || index == count - 1;
			}
			if (more < 0)
				return more;
			if (last)
				return 0;
		}
	}
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
			int sent;

			last->nlmsg_flags |= NLM_F_ACK;
			s->sequence += done - begin;
			sent = pmm_send(s, s->send_buffer, used);
			if (sent) {
				fail(outcomes, begin, done, sent);
				broken = 1;
			} else {
				int lost = collect(s, first, done - begin, outcomes);

				if (lost) {
					fail(outcomes, begin, done, -ENODATA);
					/* The kernel has done its part; after an overrun there is only the rest to clear away. */
					broken = lost != -ENOBUFS;
					for (int i = 0; !broken && i < PMM_INTERRUPTS_MAX && pmm_receive(s, MSG_DONTWAIT) > 0; i++)
						;
				}
			}
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
