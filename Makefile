# `make demo` and `make test` do all their own set-up on a fresh Debian or Ubuntu. `make help` lists the rest.
PYTHON ?= python3
export PYTHON
VENV := .venv/bin
# Much of the tests is waiting. A file's tests stay together, and each worker that meets a kernel test boots a guest of its own.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile

# What must be covered to the last branch: the modules without clock, socket or C.
PURE := $(addprefix pyminuteman/,addresses.py errors.py health/hysteresis.py) \
        $(addprefix pyminuteman/host/,errors.py filtering.py findings.py iptables_rules.py nft_table.py) \
        $(addprefix pyminuteman/daemon/,config.py config_changes.py config_checks.py config_description.py config_document.py config_readers.py differences.py entries.py histogram.py mark_events.py marks.py markup.py member_events.py outlook.py page.py page_parts.py publisher.py reach.py) \
        $(addprefix pyminuteman/daemon/,api/openapi.py api/openapi_schemas.py exposition.py faults.py health_words.py metric_names.py metrics.py observed.py outcomes.py \
        reconciler_options.py reconciler_status.py traffic_views.py views.py vip_views.py) \
        $(addprefix pyminuteman/etcd/,contents.py errors.py messages.py) \
        $(addprefix pyminuteman/ipvs/,connections.py control.py destination.py drain.py errors.py ipvsadm.py ipvsadm_parser.py \
        plan.py records.py scope.py service.py snapshot.py statistics.py tcp_metrics.py validation.py) \
        $(addprefix pyminuteman/kv/,codec.py crdt.py entries.py etcd_index.py etcd_transactions.py etcd_values.py hashes.py lives.py \
        messages.py operations.py owners.py replica.py replication.py shared.py state_codec.py store.py versions.py) \
        $(addprefix pyminuteman/membership/,adjacency.py admission.py census.py codec.py config.py decoding.py effects.py encoding.py \
        errors.py failure_detector.py gossip.py healing.py hyparview.py keyring.py keys.py members.py messages.py metrics.py \
        multicast.py node.py own_record.py records.py relays.py replay.py routing.py sealing.py steps.py stream_session.py timers.py \
        views.py) \
        $(addprefix pyminuteman/plain/,fields.py ipvs_words.py positions.py text.py) \
        $(addprefix pyminuteman/sources/,backoff.py consul_services.py document.py keyed.py marathon_state.py mesos_json.py \
        mesos_state.py mesos_tasks.py mesos_vips.py recordio.py sse.py) \
        $(addprefix pyminuteman/vips/,address_book.py allocation.py claims.py desired.py dns.py labels.py model.py names.py policy.py \
        resolution.py)

# The small set that is worth a second kernel: the contract, ipvsadm, packet filters with IPVS behind them, several CPUs, and
# its guest. Left out: the doubles of the contract, which know no kernel, and what iptables does without IPVS, where each
# change of a rule starts several processes.
ON_QEMU := $(addprefix tests/,contracts/test_table_backend.py contracts/test_statistics_and_control.py kernel/test_ipvsadm_parity.py \
        kernel/test_packet_filters.py kernel/test_host_setup.py kernel/test_traffic.py kernel/test_namespaces_and_rights.py \
        host/test_packet_filter.py testing/test_qemu_guest.py)

.PHONY: help install demo test test-qemu simulate headline soak bench bench-membership bench-store bench-sources screenshots deb lint clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | column -t -s '|'

install: ## system packages, a virtual environment, the C module
	@tools/install.sh dev

demo: ## five nodes balance real traffic on a real kernel, and one of them dies; in a minute
	@tools/install.sh daemon
	@$(VENV)/python examples/demo $(ARGS)

test: ## every test; those that need IPVS run in a guest kernel where this one has none
	@tools/install.sh dev
	@$(VENV)/python -m coverage erase
	@COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml $(VENV)/python -m pytest $(PARALLEL) $(ARGS)
	@$(VENV)/python -m coverage combine -q
	@$(VENV)/python -m coverage report --include=$$(echo $(PURE) | tr ' ' ,) --fail-under=100 --skip-covered

test-qemu: ## the tests that matter most on a second kernel: Debian's own, of several CPUs and with nftables
	@tools/install.sh qemu
	@echo "QEMU emulates a machine: it takes half a minute to boot and to find the tests, before the first one ends" >&2
	@$(VENV)/python -m pytest --kernel=qemu --kernel-required $(ON_QEMU) \
		-k "not fake and not puppet and not (test_packet_filter.py and iptables)" $(ARGS)

simulate: ## clusters in one process, seed by seed: make simulate SEEDS=0-4999
	@tools/install.sh dev
	@$(VENV)/python -m pyminuteman.testing.simulation --seeds "$(or $(SEEDS),0-4999)" $(ARGS)

soak: ## an hour of churn on ten real daemons, with checkers on: make soak ARGS="--minutes 3"
	@tools/install.sh dev
	@$(VENV)/python -m tests.soak $(ARGS)

headline: ## the predecessor's experiment: an eighth of the nodes panic, and what clients see of it
	@tools/install.sh bench
	@$(VENV)/python benchmarks/headline/run.py $(ARGS)

bench: ## reconcile latency beside the peers and the limit
	@tools/install.sh bench
	@$(VENV)/python benchmarks/reconcile.py $(ARGS)

bench-membership: ## how soon a cluster knows who has died, beside serf; needs root
	@tools/install.sh bench
	@$(VENV)/python benchmarks/membership/run.py $(ARGS)

bench-store: ## what the store costs: a change among 1,000 nodes, a restart with 100,000 entries
	@tools/install.sh bench
	@$(VENV)/python benchmarks/store/run.py $(ARGS)

bench-sources: ## how fast sources are read, and how soon the kernel has what they say
	@tools/install.sh bench
	@$(VENV)/python benchmarks/sources/run.py $(ARGS)

screenshots: ## the pictures of the web page in docs/screenshots, by a real browser
	@tools/install.sh dev
	@$(VENV)/python -m tests.support.page_screenshots

deb: ## a Debian package in dist, with all that it needs of PyPI
	@tools/install.sh dev
	@rm -rf dist && $(VENV)/python -m pip --disable-pip-version-check wheel -q --no-deps -w dist .
	@$(VENV)/python tools/make_deb.py dist/*.whl dist

lint: ## style, types, layers
	@tools/install.sh dev
	@$(VENV)/python -m tox -q -e lint,typing

clean: ## what was built
	rm -rf .venv .tox build dist *.egg-info pyminuteman/*/_native*.so pyminuteman/*/_native.c .coverage*
