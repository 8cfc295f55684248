"""What sources are handed: 1,000 services of ten backends each, in every form that they come in, as bytes.

The shapes of Mesos are those of recordings (``tests/data``), with all that a real answer has and nobody here reads: statuses, resources,
executors that repeat their tasks. Marathon and Consul follow their documentation. Nothing is random, so that all runs read the same.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

SERVICES = 1000
PER_SERVICE = 10
BACKENDS = SERVICES * PER_SERVICE
AGENTS = 200
AGENT_TASKS = 100
"""Tasks of the one agent whose own ``/state`` is read."""
FRAMEWORK = "3de98647-82e7-4a22-8fb5-32df27c1ef69-0001"
PAGE_KEYS = 500
"""Keys an answer, as the client asks an etcd for them."""


def agent_address(agent: int) -> str:
    return f"10.1.{agent // 250}.{agent % 250 + 1}"


def agent_id(agent: int) -> str:
    return f"3de98647-82e7-4a22-8fb5-32df27c1ef69-S{agent}"


def vip_address(service: int) -> str:
    return f"11.0.{service // 250}.{service % 250 + 1}"


def backend_address(service: int, at: int) -> str:
    return f"10.{2 + at}.{service // 250}.{service % 250 + 1}"


def task_name(service: int, at: int) -> str:
    return f"app-{service}.c9e19be4-6a94-11e8-bfc9-{service * PER_SERVICE + at:012x}"


def compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


# -- Mesos ---------------------------------------------------------------------------------------------------------------------


def mesos_parts(service: int, at: int) -> dict[str, Any]:
    """What the two APIs of Mesos say of a task alike. Every other app is on the network of its host, the others map a port."""
    agent = (service * PER_SERVICE + at) % AGENTS
    number = 10000 + service * PER_SERVICE + at
    port: dict[str, Any] = {"name": "http", "protocol": "tcp", "number": number}
    port["labels"] = {"labels": [{"key": "VIP_0", "value": f"/app-{service}:80"}]}
    infos: dict[str, Any] = {"ip_addresses": [{"protocol": "IPv4", "ip_address": agent_address(agent)}]}
    container: dict[str, Any] = {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": "python:3-alpine"}}}}
    if service % 2:
        port["number"] = 8080
        port["labels"]["labels"].append({"key": "network-scope", "value": "container"})
        mapped = {"host_port": number, "container_port": 8080, "protocol": "tcp"}
        infos = {"ip_addresses": [{"protocol": "IPv4", "ip_address": f"172.31.254.{at + 2}"}], "name": "mesos-bridge"}
        container["network_infos"] = [{"name": "mesos-bridge", "port_mappings": [mapped], "labels": {}}]
    labels = [{"key": "DCOS_PACKAGE_OWNER", "value": f"team-{service % 20}"}, {"key": "HAPROXY_GROUP", "value": "external"}]
    return {"agent": agent, "port": port, "infos": infos, "container": container, "labels": labels}


def _status(name: str, state: str, timestamp: float, parts: dict[str, Any]) -> dict[str, Any]:
    return {
        "task_id": {"value": name},
        "agent_id": {"value": agent_id(parts["agent"])},
        "executor_id": {"value": name},
        "state": state,
        "timestamp": timestamp,
        "source": "SOURCE_EXECUTOR",
        "uuid": "KsoG+xShR86Er3qlWRcVcQ==",
        "container_status": {
            "container_id": {"value": "790ae3b9-17a3-4ea5-919e-9b09f0555c4a"},
            "executor_pid": 5261,
            "network_infos": [parts["infos"]],
        },
    }


def _resources(amount: float) -> list[dict[str, Any]]:
    kinds = (("cpus", amount), ("mem", 128.0), ("disk", 0.0))
    return [
        {"name": name, "type": "SCALAR", "scalar": {"value": value}, "allocation_info": {"role": "slave_public"}}
        for name, value in kinds
    ]


def operator_task(service: int, at: int) -> dict[str, Any]:
    name, parts = task_name(service, at), mesos_parts(service, at)
    return {
        "task_id": {"value": name},
        "framework_id": {"value": FRAMEWORK},
        "agent_id": {"value": agent_id(parts["agent"])},
        "name": f"app-{service}",
        "state": "TASK_RUNNING",
        "status_update_state": "TASK_RUNNING",
        "status_update_uuid": "ibq8OoyDRAK/Pau27SsVgA==",
        "resources": _resources(0.1),
        "labels": {"labels": parts["labels"]},
        "discovery": {"name": f"app-{service}", "visibility": "FRAMEWORK", "ports": {"ports": [parts["port"]]}},
        "container": parts["container"],
        "statuses": [
            _status(name, "TASK_STARTING", 1528404802.1, parts),
            _status(name, "TASK_RUNNING", 1528404803.2, parts),
        ],
    }


def _operator_executor(service: int, at: int) -> dict[str, Any]:
    name, parts = task_name(service, at), mesos_parts(service, at)
    info = {
        "executor_id": {"value": name},
        "framework_id": {"value": FRAMEWORK},
        "name": f"Command Executor (Task: {name}) (Command: sh -c 'python3 -m h...')",
        "source": name,
        "resources": _resources(0.1),
        "labels": {"labels": parts["labels"]},
        "discovery": {"name": f"app-{service}", "visibility": "FRAMEWORK", "ports": {"ports": [parts["port"]]}},
        "container": parts["container"],
        "command": {"shell": False, "value": "/opt/mesosphere/libexec/mesos/mesos-executor", "arguments": ["mesos-executor"]},
    }
    return {"agent_id": {"value": agent_id(parts["agent"])}, "executor_info": info}


def mesos_get_state() -> bytes:
    """A master's answer to ``GET_STATE``."""
    places = [(service, at) for service in range(SERVICES) for at in range(PER_SERVICE)]
    agents = [
        {
            "active": True,
            "version": "1.8.0",
            "pid": f"slave(1)@{agent_address(agent)}:5051",
            "agent_info": {
                "id": {"value": agent_id(agent)},
                "hostname": agent_address(agent),
                "port": 5051,
                "resources": _resources(16.0),
            },
            "total_resources": _resources(16.0),
        }
        for agent in range(AGENTS)
    ]
    framework = {
        "id": {"value": FRAMEWORK},
        "name": "marathon",
        "user": "root",
        "principal": "dcos_marathon",
        "checkpoint": True,
    }
    found = {
        "get_agents": {"agents": agents},
        "get_frameworks": {"frameworks": [{"framework_info": framework, "active": True, "connected": True}]},
        "get_executors": {"executors": [_operator_executor(*place) for place in places]},
        "get_tasks": {"tasks": [operator_task(*place) for place in places]},
    }
    return compact({"type": "GET_STATE", "get_state": found})


def state_task(service: int, at: int) -> dict[str, Any]:
    name, parts = task_name(service, at), mesos_parts(service, at)
    statuses = [
        {
            "state": state,
            "timestamp": timestamp,
            "labels": [],
            "container_status": {
                "container_id": {"value": "790ae3b9-17a3-4ea5-919e-9b09f0555c4a"},
                "network_infos": [parts["infos"]],
            },
        }
        for state, timestamp in (("TASK_STARTING", 1528404802.1), ("TASK_RUNNING", 1528404803.2))
    ]
    return {
        "id": name,
        "name": f"app-{service}",
        "framework_id": FRAMEWORK,
        "executor_id": "",
        "slave_id": agent_id(parts["agent"]),
        "state": "TASK_RUNNING",
        "resources": {"cpus": 0.1, "mem": 128.0, "disk": 0.0, "gpus": 0.0, "ports": "[31000-31000]"},
        "role": "slave_public",
        "statuses": statuses,
        "labels": parts["labels"],
        "discovery": {"name": f"app-{service}", "visibility": "FRAMEWORK", "ports": {"ports": [parts["port"]]}},
        "container": parts["container"],
    }


def _framework(**more: object) -> dict[str, Any]:
    return {"id": FRAMEWORK, "name": "marathon", "hostname": "10.0.5.220", "active": True, "role": "slave_public", **more}


def mesos_master_state() -> bytes:
    """A master's ``/state``."""
    tasks = [state_task(service, at) for service in range(SERVICES) for at in range(PER_SERVICE)]
    slaves = [
        {
            "id": agent_id(agent),
            "hostname": agent_address(agent),
            "port": 5051,
            "pid": f"slave(1)@{agent_address(agent)}:5051",
            "resources": {"cpus": 16.0, "mem": 64000.0, "ports": "[1025-2180, 2182-3887, 8182-32000]"},
            "active": True,
            "version": "1.8.0",
        }
        for agent in range(AGENTS)
    ]
    frameworks = [_framework(tasks=tasks, completed_tasks=[], executors=[])]
    return compact({"version": "1.8.0", "pid": "master@10.0.5.220:5050", "slaves": slaves, "frameworks": frameworks})


def mesos_agent_state() -> bytes:
    """``/state`` of an agent that runs a task of each of a hundred apps."""
    here = {"slave_id": agent_id(0)}
    executors = [
        {
            "id": task_name(service, 0),
            "source": task_name(service, 0),
            "tasks": [state_task(service, 0) | here],
            "completed_tasks": [],
        }
        for service in range(AGENT_TASKS)
    ]
    frameworks = [_framework(executors=executors, completed_executors=[])]
    head = {"version": "1.8.0", "id": agent_id(0), "hostname": agent_address(0), "pid": f"slave(1)@{agent_address(0)}:5051"}
    return compact({**head, "frameworks": frameworks})


# -- Marathon and Consul -------------------------------------------------------------------------------------------------------


def _marathon_app(service: int) -> dict[str, Any]:
    name = f"app-{service}"
    mapping = {"containerPort": 8080, "hostPort": 0, "servicePort": 10000 + service, "protocol": "tcp", "name": "http"}
    mapping["labels"] = {"VIP_0": f"/{name}:80"}
    tasks = [
        {
            "id": task_name(service, at),
            "appId": f"/{name}",
            "host": agent_address((service * PER_SERVICE + at) % AGENTS),
            "slaveId": agent_id((service * PER_SERVICE + at) % AGENTS),
            "ports": [10000 + service * PER_SERVICE + at],
            "state": "TASK_RUNNING",
            "stagedAt": "2018-06-07T20:53:21.043Z",
            "startedAt": "2018-06-07T20:53:22.125Z",
            "version": "2018-06-07T20:53:20.998Z",
            "ipAddresses": [{"ipAddress": f"172.31.254.{at + 2}", "protocol": "IPv4"}],
            "healthCheckResults": [{"alive": True, "consecutiveFailures": 0, "taskId": task_name(service, at)}],
        }
        for at in range(PER_SERVICE)
    ]
    return {
        "id": f"/{name}",
        "cmd": "python3 -m http.server 8080",
        "instances": PER_SERVICE,
        "cpus": 0.1,
        "mem": 128,
        "env": {"TEAM": f"team-{service % 20}"},
        "labels": {"DCOS_PACKAGE_OWNER": f"team-{service % 20}"},
        "networks": [{"mode": "container/bridge"}],
        "container": {"type": "MESOS", "docker": {"image": "python:3-alpine"}, "portMappings": [mapping]},
        "healthChecks": [{"protocol": "MESOS_HTTP", "path": "/", "portIndex": 0}],
        "upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 1},
        "tasksRunning": PER_SERVICE,
        "tasksHealthy": PER_SERVICE,
        "tasks": tasks,
    }


def marathon_apps() -> bytes:
    """``/v2/apps?embed=apps.tasks``."""
    return compact({"apps": [_marathon_app(service) for service in range(SERVICES)]})


def _consul_instance(service: int, at: int) -> dict[str, Any]:
    name, node, own = f"app-{service}", f"node-{(service + at) % AGENTS}", f"app-{service}-{at}"
    return {
        "Node": {"ID": "f00", "Node": node, "Address": agent_address((service + at) % AGENTS), "Datacenter": "dc1", "Meta": {}},
        "Service": {
            "ID": own,
            "Service": name,
            "Tags": [f"minuteman.vip=tcp://{vip_address(service)}:80", "v2"],
            "Address": backend_address(service, at),
            "Port": 8080,
            "Meta": {"version": "2"},
            "Weights": {"Passing": 1, "Warning": 1},
        },
        "Checks": [
            {"Node": node, "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing", "ServiceID": ""},
            {
                "Node": node,
                "CheckID": f"service:{own}",
                "Name": "HTTP",
                "Status": "passing",
                "ServiceID": own,
                "Output": "200 OK",
            },
        ],
    }


def consul_answers() -> bytes:
    """The catalog, and then the answer of each service: one JSON document a line."""
    tags = {f"app-{service}": [f"minuteman.vip=tcp://{vip_address(service)}:80", "v2"] for service in range(SERVICES)}
    answers = [[_consul_instance(service, at) for at in range(PER_SERVICE)] for service in range(SERVICES)]
    return b"\n".join([compact(tags), *map(compact, answers)])


# -- our own form --------------------------------------------------------------------------------------------------------------


def vip_document(service: int, backends: int = PER_SERVICE, weight: int = 1) -> dict[str, Any]:
    """One VIP; the weight is that of its first backend."""
    rows = [{"address": backend_address(service, at), "port": 8080, "weight": 1 if at else weight} for at in range(backends)]
    return {"listen": f"tcp://{vip_address(service)}:80", "scheduler": "rr", "backend": rows}


def json_file() -> bytes:
    return compact({"version": 1, "vip": [vip_document(service) for service in range(SERVICES)]})


def toml_text(vips: list[dict[str, Any]]) -> str:
    """As people write it."""
    lines = ["version = 1"]
    for vip in vips:
        lines += ["", "[[vip]]", f'listen = "{vip["listen"]}"', f'scheduler = "{vip["scheduler"]}"']
        for row in vip["backend"]:
            lines += ["", "  [[vip.backend]]", f'  address = "{row["address"]}"', f"  port = {row['port']}"]
            lines += [f"  weight = {row['weight']}"]
    return "\n".join([*lines, ""])


def toml_file() -> bytes:
    return toml_text([vip_document(service) for service in range(SERVICES)]).encode()


def etcd_pages() -> bytes:
    """The answers of an etcd to reading a prefix of 10,000 documents, page by page, one a line. Each VIP has one backend."""
    values = [compact(vip_document(service, 1)) for service in range(BACKENDS)]
    pages = []
    for begin in range(0, BACKENDS, PAGE_KEYS):
        items = [
            {
                "key": b64encode(b"/minuteman/vips/app-%d" % (begin + at)).decode(),
                "create_revision": str(begin + at + 2),
                "mod_revision": str(begin + at + 2),
                "version": "1",
                "value": b64encode(value).decode(),
            }
            for at, value in enumerate(values[begin : begin + PAGE_KEYS])
        ]
        header = {
            "cluster_id": "14841639068965178418",
            "member_id": "10276657743932975437",
            "revision": "10001",
            "raft_term": "2",
        }
        page: dict[str, Any] = {"header": header, "kvs": items, "count": str(BACKENDS - begin)}
        pages.append(compact(page | ({"more": True} if begin + PAGE_KEYS < BACKENDS else {})))
    return b"\n".join(pages)


def rules_file() -> bytes:
    """As ``ipvsadm -Sn`` writes it."""
    lines = []
    for service in range(SERVICES):
        listen = f"{vip_address(service)}:80"
        lines.append(f"-A -t {listen} -s rr")
        lines += [f"-a -t {listen} -r {backend_address(service, at)}:8080 -m -w 1" for at in range(PER_SERVICE)]
    return "\n".join([*lines, ""]).encode()
