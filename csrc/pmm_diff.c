/* SPDX-License-Identifier: Apache-2.0
 * The difference of two sorted tables, by merging them: the fast twin of diff() in plan.py, which says why the
 * operations come in this order. The two are held together by a property test. */
#include "pmm_internal.h"

#include <errno.h>
#include <string.h>

enum phase {
	ADD_SERVICE,
	ADD_DESTINATION,
	EDIT_SERVICE,
	RAISE_DESTINATION,
	LOWER_DESTINATION,
	REMOVE_DESTINATION,
	REMOVE_SERVICE,
	PHASES
};

static const uint8_t commands[PHASES] = {
	[ADD_SERVICE] = IPVS_CMD_NEW_SERVICE,    [ADD_DESTINATION] = IPVS_CMD_NEW_DEST,
	[EDIT_SERVICE] = IPVS_CMD_SET_SERVICE,   [RAISE_DESTINATION] = IPVS_CMD_SET_DEST,
	[LOWER_DESTINATION] = IPVS_CMD_SET_DEST, [REMOVE_DESTINATION] = IPVS_CMD_DEL_DEST,
	[REMOVE_SERVICE] = IPVS_CMD_DEL_SERVICE,
};

/* The merge runs twice: to count each phase, and to write each operation at its phase's place. */
struct walk {
	struct pmm_operation *out; /* NULL while counting */
	uint64_t next[PHASES];
};

static void emit(struct walk *walk, enum phase phase, uint32_t service, const struct pmm_destination *destination)
{
	struct pmm_operation *operation;

	if (walk->out) {
		operation = &walk->out[walk->next[phase]];
		memset(operation, 0, sizeof(*operation));
		operation->command = commands[phase];
		operation->service = service;
		if (destination)
			operation->destination = *destination;
	}
	walk->next[phase]++;
}

static void merge_destinations(struct walk *walk, uint32_t service, const struct pmm_destination *have, uint32_t have_count,
			       const struct pmm_destination *want, uint32_t want_count)
{
	uint32_t h = 0, w = 0;

	if (have_count == want_count && (have_count == 0 || memcmp(have, want, have_count * sizeof(*have)) == 0))
		return;
	while (h < have_count || w < want_count) {
		int order = h == have_count ? 1 : w == want_count ? -1 : memcmp(&have[h], &want[w], PMM_DESTINATION_KEY_SIZE);

		if (order < 0) {
			emit(walk, REMOVE_DESTINATION, service, &have[h++]);
		} else if (order > 0) {
			emit(walk, ADD_DESTINATION, service, &want[w++]);
		} else {
			if (memcmp(&have[h], &want[w], sizeof(*have)) != 0)
				emit(walk, want[w].weight < have[h].weight ? LOWER_DESTINATION : RAISE_DESTINATION, service,
				     &want[w]);
			h++, w++;
		}
	}
}

static void merge(struct walk *walk, const struct pmm_service *have, uint32_t have_count,
		  const struct pmm_destination *have_rows, const struct pmm_service *want, uint32_t want_count,
		  const struct pmm_destination *want_rows)
{
	uint32_t h = 0, w = 0;

	while (h < have_count || w < want_count) {
		int order = h == have_count ? 1 : w == want_count ? -1 : memcmp(&have[h], &want[w], PMM_SERVICE_KEY_SIZE);

		if (order < 0) {
			emit(walk, REMOVE_SERVICE, want_count + h, NULL);
		} else {
			if (order > 0)
				emit(walk, ADD_SERVICE, w, NULL);
			else if (memcmp(&have[h], &want[w], offsetof(struct pmm_service, destinations)) != 0)
				emit(walk, EDIT_SERVICE, w, NULL);
			merge_destinations(walk, w, have_rows, order ? 0 : have[h].destinations, want_rows,
					   want[w].destinations);
		}
		if (order <= 0)
			have_rows += have[h++].destinations;
		if (order >= 0)
			want_rows += want[w++].destinations;
	}
}

int64_t pmm_diff(const struct pmm_service *current, uint32_t current_count, const struct pmm_destination *current_destinations,
		 const struct pmm_service *desired, uint32_t desired_count, const struct pmm_destination *desired_destinations,
		 struct pmm_operation *out, uint32_t capacity)
{
	struct walk walk = { 0 };
	uint64_t total = 0;

	merge(&walk, current, current_count, current_destinations, desired, desired_count, desired_destinations);
	for (int phase = 0; phase < PHASES; phase++) {
		uint64_t count = walk.next[phase];

		walk.next[phase] = total;
		total += count;
	}
	if (total > capacity)
		return -ENOSPC;
	walk.out = out;
	if (total)
		merge(&walk, current, current_count, current_destinations, desired, desired_count, desired_destinations);
	return (int64_t)total;
}
