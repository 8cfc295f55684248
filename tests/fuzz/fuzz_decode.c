/* SPDX-License-Identifier: Apache-2.0
 * libFuzzer harness: a datagram is walked as pmm_batch.c walks it, and every decoder has a go at each message. */
#include "pmm_internal.h"

#include <stdlib.h>
#include <string.h>

enum { FAMILY = 0x1d }; /* as in tests/support/netlink_messages.py */

static void use(const void *bytes, size_t length)
{
	volatile uint8_t sum = 0;

	for (size_t i = 0; i < length; i++)
		sum = (uint8_t)(sum + ((const uint8_t *)bytes)[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1); /* aligned as the receive buffer is, and no longer than the datagram */
	const uint8_t *bytes = copy;
	size_t length = size;
	struct pmm_message message;

	if (!copy)
		return 0;
	if (size)
		memcpy(copy, data, size);
	while (pmm_next_message(&bytes, &length, FAMILY, &message) > 0) {
		struct pmm_service service;
		struct pmm_destination destination;
		struct pmm_counters counters;
		struct pmm_config config = { 0 };
		struct pmm_daemon daemon;
		struct pmm_metric metric;
		uint16_t family = 0;
		uint32_t features = 0;

		if (message.text)
			use(message.text, message.text_length);
		if (!pmm_decode_service(&message, &service, &counters, &features)) {
			use(&service, sizeof(service));
			use(&counters, sizeof(counters));
		}
		if (!pmm_decode_service(&message, &service, NULL, &features) && service.scheduler[15])
			abort(); /* not ended */
		if (!pmm_decode_destination(&message, AF_INET6, &destination, &counters, &features)) {
			use(&destination, sizeof(destination));
			use(&counters, sizeof(counters));
		}
		if (!pmm_decode_config(&message, &config))
			use(&config, sizeof(config));
		if (!pmm_decode_daemon(&message, &daemon) && daemon.interface[15])
			abort();
		if (!pmm_decode_metric(&message, &metric)) {
			use(&metric, sizeof(metric));
			if (metric.family != AF_INET && metric.family != AF_INET6)
				abort();
		}
		if (!pmm_decode_family(&message, &family) && family <= 0x10)
			abort(); /* would be taken for the controller */
	}
	free(copy);
	return 0;
}
