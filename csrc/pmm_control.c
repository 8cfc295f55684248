/* SPDX-License-Identifier: Apache-2.0
 * What is not the table itself: versions, timeouts, the synchronisation daemons. */
#include "pmm_internal.h"

#include <errno.h>

static int take_config(void *context, const struct pmm_message *message)
{
	return pmm_decode_config(message, context);
}

static int get_config(struct pmm_socket *s, uint8_t command, struct pmm_config *out)
{
	int error = pmm_encode_get(s->message, s->family_id, ++s->sequence, command, 0, NULL);

	return error ? error : pmm_request(s, take_config, out);
}

int pmm_get_config(struct pmm_socket *s, struct pmm_config *out)
{
	int error;

	*out = (struct pmm_config){ 0 };
	s->texts[0] = '\0';
	error = get_config(s, IPVS_CMD_GET_INFO, out);
	return error ? error : get_config(s, IPVS_CMD_GET_CONFIG, out);
}

int pmm_set_config(struct pmm_socket *s, const struct pmm_config *config)
{
	int error = pmm_encode_config(s->message, s->family_id, ++s->sequence, config);

	s->texts[0] = '\0';
	return error ? error : pmm_request(s, NULL, NULL);
}

struct daemons {
	struct pmm_daemon *out;
	int count;
};

static int take_daemon(void *context, const struct pmm_message *message)
{
	struct daemons *daemons = context;

	if (daemons->count >= 2) /* one master, one backup: there are no more */
		return -EBADMSG;
	return pmm_decode_daemon(message, &daemons->out[daemons->count++]);
}

int pmm_get_daemons(struct pmm_socket *s, struct pmm_daemon out[2])
{
	struct daemons daemons = { out, 0 };
	int error = pmm_encode_get(s->message, s->family_id, ++s->sequence, IPVS_CMD_GET_DAEMON, NLM_F_DUMP, NULL);

	s->texts[0] = '\0';
	if (!error)
		error = pmm_request(s, take_daemon, &daemons);
	return error ? error : daemons.count;
}

static int change_daemon(struct pmm_socket *s, uint8_t command, const struct pmm_daemon *daemon)
{
	int error = pmm_encode_daemon(s->message, s->family_id, ++s->sequence, command, daemon);

	s->texts[0] = '\0';
	return error ? error : pmm_request(s, NULL, NULL);
}

int pmm_start_daemon(struct pmm_socket *s, const struct pmm_daemon *daemon)
{
	return change_daemon(s, IPVS_CMD_NEW_DAEMON, daemon);
}

int pmm_stop_daemon(struct pmm_socket *s, const struct pmm_daemon *daemon)
{
	return change_daemon(s, IPVS_CMD_DEL_DAEMON, daemon);
}
