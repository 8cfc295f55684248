/* SPDX-License-Identifier: Apache-2.0
 * Reading the table: one dump of the services, and one of the destinations of each.
 *
 * One socket can have one dump under way (a second is answered EBUSY), and several sockets are no faster: so one after
 * the other, two system calls each. The kernel resumes a dump by index: when rows vanish during it, as many live ones may
 * go unreported, and NLM_F_DUMP_INTR is not set. What is absent here may therefore exist; who adds it is told EEXIST. */
#include "pmm_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct dump {
	struct pmm_socket *s;
	uint32_t flags;
	uint32_t features;
	uint32_t service_count;
	uint32_t destination_count;
	uint8_t family; /* of the service whose destinations are being read */
};

/* Make room for one row more in two parallel arrays. */
static int grow(void **records, struct pmm_counters **counters, uint32_t *size, uint32_t wanted, size_t record, uint32_t limit,
		bool with_counters)
{
	uint32_t before = *size;
	uint32_t after = before;
	int error = pmm_resize(records, &after, wanted, record, limit);

	if (error)
		return error;
	if (with_counters && (after != before || !*counters)) {
		void *moved = realloc(*counters, after * sizeof(**counters));

		if (!moved)
			return -ENOMEM;
		*counters = moved;
	} else if (after != before) {
		free(*counters); /* of another size now; made again when asked for */
		*counters = NULL;
	}
	*size = after;
	return 0;
}

static int add_service(void *context, const struct pmm_message *message)
{
	struct dump *dump = context;
	struct pmm_socket *s = dump->s;
	bool counters = dump->flags & PMM_DUMP_COUNTERS;
	uint32_t at = dump->service_count;
	void *records = s->services;
	int error = grow(&records, &s->service_counters, &s->services_size, at + 1, sizeof(*s->services), PMM_SERVICES_MAX,
			 counters);

	s->services = records;
	if (error)
		return error;
	error = pmm_decode_service(message, &s->services[at], counters ? &s->service_counters[at] : NULL, &dump->features);
	if (!error)
		dump->service_count++;
	return error;
}

static int add_destination(void *context, const struct pmm_message *message)
{
	struct dump *dump = context;
	struct pmm_socket *s = dump->s;
	bool counters = dump->flags & PMM_DUMP_COUNTERS;
	uint32_t at = dump->destination_count;
	void *records = s->destinations;
	int error = grow(&records, &s->destination_counters, &s->destinations_size, at + 1, sizeof(*s->destinations),
			 PMM_DESTINATIONS_MAX, counters);

	s->destinations = records;
	if (error)
		return error;
	error = pmm_decode_destination(message, dump->family, &s->destinations[at],
				       counters ? &s->destination_counters[at] : NULL, &dump->features);
	if (!error)
		dump->destination_count++;
	return error;
}

static int compare_destinations(const void *a, const void *b)
{
	return memcmp(a, b, PMM_DESTINATION_KEY_SIZE);
}

/* Sort by key. The kernel puts each new destination in front, so what was added in order comes out backwards: turning it
 * round is all there is to do in the usual case. Counters, if any, cannot follow a sort and are not asked for with one. */
static void sort(struct pmm_destination *rows, uint32_t count)
{
	bool falling = true, rising = true;

	for (uint32_t i = 1; i < count && (falling || rising); i++) {
		int order = compare_destinations(&rows[i - 1], &rows[i]);

		falling = falling && order > 0;
		rising = rising && order < 0;
	}
	if (rising)
		return;
	if (!falling) {
		qsort(rows, count, sizeof(*rows), compare_destinations);
		return;
	}
	for (uint32_t i = 0; i < count / 2; i++) {
		struct pmm_destination row = rows[i];

		rows[i] = rows[count - 1 - i];
		rows[count - 1 - i] = row;
	}
}

static int read_destinations(struct dump *dump, uint32_t index)
{
	struct pmm_socket *s = dump->s;
	uint32_t first = dump->destination_count;
	int error = pmm_encode_get(s->message, s->family_id, ++s->sequence, IPVS_CMD_GET_DEST, NLM_F_DUMP, &s->services[index]);

	dump->family = s->services[index].family;
	if (!error)
		error = pmm_request(s, add_destination, dump);
	if (error)
		return error;
	s->services[index].destinations = dump->destination_count - first;
	if (!(dump->flags & (PMM_DUMP_KERNEL_ORDER | PMM_DUMP_COUNTERS)))
		sort(s->destinations + first, dump->destination_count - first);
	return 0;
}

static int dump_once(struct dump *dump, const struct pmm_service *only)
{
	struct pmm_socket *s = dump->s;
	int error = pmm_encode_get(s->message, s->family_id, ++s->sequence, IPVS_CMD_GET_SERVICE, only ? 0 : NLM_F_DUMP, only);

	if (!error)
		error = pmm_request(s, add_service, dump);
	for (uint32_t i = 0; !error && i < dump->service_count; i++)
		error = read_destinations(dump, i);
	return error;
}

int pmm_dump(struct pmm_socket *s, const struct pmm_service *only, uint32_t flags, struct pmm_table *out)
{
	int error = -EINTR;

	memset(out, 0, sizeof(*out));
	s->texts[0] = '\0';
	for (int tries = 0; error == -EINTR && tries < PMM_DUMP_TRIES; tries++) {
		struct dump dump = { .s = s, .flags = flags };

		error = dump_once(&dump, only);
		if (error)
			continue;
		out->services = s->services;
		out->destinations = s->destinations;
		out->service_counters = flags & PMM_DUMP_COUNTERS ? s->service_counters : NULL;
		out->destination_counters = flags & PMM_DUMP_COUNTERS ? s->destination_counters : NULL;
		out->service_count = dump.service_count;
		out->destination_count = dump.destination_count;
		out->features = dump.features;
		out->has_services = dump.service_count > 0;
		out->has_destinations = dump.destination_count > 0;
	}
	return error;
}
