/* SPDX-License-Identifier: Apache-2.0
 * Reading tcp_metrics, another family of generic netlink: what the kernel remembers of round trips, address by address. */
#include "pmm_internal.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/tcp_metrics.h>

struct metrics {
	struct pmm_socket *s;
	uint32_t count;
};

static int take_family(void *context, const struct pmm_message *message)
{
	return pmm_decode_family(message, context);
}

static int take_metric(void *context, const struct pmm_message *message)
{
	struct metrics *metrics = context;
	struct pmm_socket *s = metrics->s;
	void *rows = s->metrics;
	int error = pmm_resize(&rows, &s->metrics_size, metrics->count + 1, sizeof(*s->metrics), PMM_METRICS_MAX);

	s->metrics = rows;
	if (!error)
		error = pmm_decode_metric(message, &s->metrics[metrics->count]);
	if (!error)
		metrics->count++;
	return error;
}

/* A request to another family than IPVS, whose messages are then those of interest. */
static int ask(struct pmm_socket *s, uint16_t family_id, pmm_each *each, void *context)
{
	uint16_t own = s->family_id;
	int error;

	s->family_id = family_id;
	error = pmm_request(s, each, context);
	s->family_id = own;
	return error;
}

int pmm_get_metrics(struct pmm_socket *s, const struct pmm_metric **out)
{
	struct metrics metrics = { s, 0 };
	int error = 0;

	*out = NULL;
	s->texts[0] = '\0';
	if (!s->metrics_family) {
		error = pmm_encode_family(s->message, ++s->sequence, TCP_METRICS_GENL_NAME);
		if (!error)
			error = ask(s, GENL_ID_CTRL, take_family, &s->metrics_family);
	}
	if (!error)
		error = pmm_encode_get(s->message, s->metrics_family, ++s->sequence, TCP_METRICS_CMD_GET, NLM_F_DUMP, NULL);
	if (!error)
		error = ask(s, s->metrics_family, take_metric, &metrics);
	if (error)
		return error;
	*out = s->metrics;
	return (int)metrics.count;
}
