"""Renders the Helm chart with several sets of values and checks what an operator relies on.

Run by `make chart`, with helm and the packages of `.venv`. Prints `N passed, M failed` and fails when M is not 0.
"""

import base64
import contextlib
import io
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import kubernetes_validate
import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "code-explainer"
KUBERNETES = "1.37"
# The API server would check these against their definitions, which are not at hand.
CUSTOM = {"ServiceMonitor"}

passed = 0
failed = 0


def check(what, holds):
    """Counts one fact; a false one is printed."""
    global passed, failed
    if holds:
        passed += 1
    else:
        failed += 1
        print("FAILED: " + what)


def helm(*arguments):
    """Renders the chart: (objects, the error's text)."""
    done = subprocess.run(["helm", "template", "demo", str(CHART), "--namespace", "shop", *arguments],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    objects = [o for o in yaml.safe_load_all(done.stdout) if o] if done.returncode == 0 else []
    return objects, done.stderr


def render(case, *arguments):
    objects, error = helm("--values", str(CHART / "ci" / (case + "-values.yaml")), *arguments)
    check("%s: renders: %s" % (case, error), objects)
    return Rendered(case, objects)


class Rendered:
    """The objects of one rendering."""

    def __init__(self, case, objects):
        self.case = case
        self.objects = objects

    def get(self, kind, name=""):
        """The object of a kind whose name ends so, or an empty one."""
        found = [o for o in self.objects if o["kind"] == kind and o["metadata"]["name"] == "demo-code-explainer" + name]
        return found[0] if found else {}

    def kinds(self):
        return {o["kind"] for o in self.objects}

    def check(self, what, holds):
        check("%s: %s" % (self.case, what), holds)

    def server(self):
        return self.get("Deployment")["spec"]["template"]["spec"]

    def environment(self):
        return {e["name"]: e.get("value", e.get("valueFrom")) for e in self.server()["containers"][0]["env"]}


def manifests_are_valid(rendered):
    for o in rendered.objects:
        if o["kind"] in CUSTOM:
            continue
        name = "%s %s" % (o["kind"], o["metadata"]["name"])
        try:
            with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                kubernetes_validate.validate(o, KUBERNETES, strict=True)
            rendered.check(name, True)
        except Exception as error:  # whatever it is, the manifest did not pass
            rendered.check("%s is valid: %s" % (name, error), False)


def selectors_match(rendered):
    pods = [(o["metadata"]["name"], o["spec"]["template"]["metadata"]["labels"]) for o in rendered.objects
            if o["kind"] in ("Deployment", "StatefulSet")]
    for o in rendered.objects:
        spec = o.get("spec", {})
        selector = {"Deployment": lambda: spec["selector"]["matchLabels"],
                    "StatefulSet": lambda: spec["selector"]["matchLabels"],
                    "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
                    "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
                    "Service": lambda: spec["selector"]}.get(o["kind"])
        if selector:
            hits = [name for name, labels in pods if selector().items() <= labels.items()]
            rendered.check("%s %s selects the pods of one workload, not of %s" % (o["kind"], o["metadata"]["name"], hits),
                           len(hits) == 1)


def ports_exist(rendered):
    pods = [o["spec"]["template"] for o in rendered.objects if o["kind"] in ("Deployment", "StatefulSet")]
    for service in (o for o in rendered.objects if o["kind"] == "Service"):
        selector = service["spec"]["selector"].items()
        names = {port["name"] for pod in pods if selector <= pod["metadata"]["labels"].items()
                 for container in pod["spec"]["containers"] for port in container["ports"]}
        for port in service["spec"]["ports"]:
            rendered.check("Service %s: port %s is one of its pods'" % (service["metadata"]["name"], port["targetPort"]),
                           port["targetPort"] in names)


def pods_are_confined(rendered):
    for o in rendered.objects:
        if o["kind"] not in ("Deployment", "StatefulSet"):
            continue
        pod = o["spec"]["template"]["spec"]
        where = "%s %s" % (o["kind"], o["metadata"]["name"])
        rendered.check(where + ": runs as a user without rights", pod["securityContext"]["runAsNonRoot"])
        rendered.check(where + ": system calls are filtered",
                       pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"})
        rendered.check(where + ": no token of the API", pod["automountServiceAccountToken"] is False)
        for container in pod["containers"] + pod.get("initContainers", []):
            security = container["securityContext"]
            rendered.check(where + ": read-only file system", security["readOnlyRootFilesystem"])
            rendered.check(where + ": no more rights than it began with", security["allowPrivilegeEscalation"] is False)
            rendered.check(where + ": no capabilities", security["capabilities"] == {"drop": ["ALL"]})
            rendered.check(where + ": memory is limited", "memory" in container["resources"]["limits"])
            declared = {volume["name"] for volume in pod["volumes"]} | {
                claim["metadata"]["name"] for claim in o["spec"].get("volumeClaimTemplates", [])}
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            rendered.check(where + ": mounts what there is", mounted <= declared)


def server_stops_in_order(rendered):
    pod = rendered.server()
    container = pod["containers"][0]
    pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = int(rendered.environment()["CODE_EXPLAINER_DRAIN_TIMEOUT"].removesuffix("s"))
    grace = int(rendered.environment()["CODE_EXPLAINER_SHUTDOWN_GRACE"].removesuffix("s"))
    rendered.check("the grace period is longer than preStop, grace, drain and last words together",
                   pod["terminationGracePeriodSeconds"] > pre_stop + grace + drain + 10)
    encrypted = "CODE_EXPLAINER_TLS_CERT" in rendered.environment()
    port = container["readinessProbe"].get("grpc", {}).get("port")
    rendered.check("readiness asks gRPC, where it is not encrypted", port == (None if encrypted else 50051))
    rendered.check("liveness asks /healthz", container["livenessProbe"]["httpGet"]["path"] == "/healthz")
    rendered.check("start-up asks /readyz", container["startupProbe"]["httpGet"]["path"] == "/readyz")
    rendered.check("no variables of Services", pod["enableServiceLinks"] is False)


def envoy_balances(rendered):
    config = yaml.safe_load(rendered.get("ConfigMap", "-envoy")["data"]["envoy.yaml"])
    listener = config["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    route = manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
    cluster = config["static_resources"]["clusters"][0]
    address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    headless = rendered.get("Service", "-headless")
    options = cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
    health = cluster["health_checks"][0]
    rendered.check("Envoy: streams have no time limit", route["timeout"] == "0s")
    rendered.check("Envoy: silent streams end", manager["stream_idle_timeout"] == "300s")
    rendered.check("Envoy: HTTP/2 from clients", manager["codec_type"] == "HTTP2")
    rendered.check("Envoy: HTTP/2 to servers", "http2_protocol_options" in options["explicit_http_config"])
    rendered.check("Envoy: to the server with the fewest calls", cluster["lb_policy"] == "LEAST_REQUEST")
    rendered.check("Envoy: finds servers by DNS", cluster["type"] == "STRICT_DNS")
    rendered.check("Envoy: asks the headless Service", address["address"] == headless["metadata"]["name"] + ".shop.svc"
                   and headless["spec"]["clusterIP"] == "None")
    rendered.check("Envoy: on its port", address["port_value"] == headless["spec"]["ports"][0]["port"])
    rendered.check("Envoy: gRPC health", health["grpc_health_check"]["service_name"] == "codeexplainer.v1.ExplainService")
    rendered.check("Envoy: health without traffic too", health["no_traffic_interval"] == "1s")
    rendered.check("Envoy: circuit breakers", cluster["circuit_breakers"]["thresholds"][0]["max_requests"] == 4096)
    rendered.check("Envoy: retries only what was not begun",
                   route["retry_policy"]["retry_on"] == "connect-failure,refused-stream,unavailable")
    rendered.check("Envoy: the admin port is its own", config["admin"]["address"]["socket_address"]["address"] == "127.0.0.1")
    envoy = rendered.get("Deployment", "-envoy")["spec"]["template"]
    pod = envoy["spec"]
    hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    rendered.check("Envoy: the drain fits the grace period", pod["terminationGracePeriodSeconds"] > 30)
    rendered.check("Envoy: the drain is a valid script", subprocess.run(["bash", "-nc", hook]).returncode == 0)
    rendered.check("Envoy: a changed config starts new pods", "checksum/config" in envoy["metadata"]["annotations"])


def let_in(rendered, policy):
    """Who reaches which port by a policy; None is everybody."""
    spec = rendered.get("NetworkPolicy", policy)["spec"]
    rendered.check("%s: what comes in is looked at" % policy, spec["policyTypes"] == ["Ingress"])
    return {port["port"]: rule.get("from") for rule in spec["ingress"] for port in rule["ports"]}


def pods(rendered, kind, name=""):
    """A workload's pods, as a policy names them."""
    return {"podSelector": rendered.get(kind, name)["spec"]["selector"]}


def policies_name_ports(rendered):
    """A policy for a port that its pods do not have would close the one that they have."""
    templates = [o["spec"]["template"] for o in rendered.objects if o["kind"] in ("Deployment", "StatefulSet")]
    for policy in (o for o in rendered.objects if o["kind"] == "NetworkPolicy"):
        selected = policy["spec"]["podSelector"]["matchLabels"].items()
        names = {port["name"] for pod in templates if selected <= pod["metadata"]["labels"].items()
                 for container in pod["spec"]["containers"] for port in container["ports"]}
        named = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        rendered.check("NetworkPolicy %s: of its pods' ports" % policy["metadata"]["name"], named == names)


def default():
    r = render("default")
    r.check("everything is there", r.kinds() == {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "Secret", "Service",
        "ServiceAccount", "StatefulSet"})
    secret = r.environment()["CODE_EXPLAINER_CACHE_SECRET"]["secretKeyRef"]
    made = base64.b64decode(r.get("Secret")["data"][secret["key"]])
    r.check("Redis comes with a secret of the cache's", secret["name"] == "demo-code-explainer" and len(made) >= 32)
    monitoring = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    r.check("the servers are reached by the balancer, and for metrics", let_in(r, "-server")
            == {"grpc": [pods(r, "Deployment", "-envoy")], "http": monitoring})
    r.check("the balancer is reached by all, and for metrics", let_in(r, "-envoy") == {"grpc": None, "status": monitoring})
    r.check("Redis is reached by the servers", let_in(r, "-redis") == {"redis": [pods(r, "Deployment")]})
    r.check("weights are mapped", r.environment()["CODE_EXPLAINER_MODEL_MEMORY"] == "map")
    r.check("the autoscaler sets the number of pods", "replicas" not in r.get("Deployment")["spec"])
    hpa = r.get("HorizontalPodAutoscaler")["spec"]
    r.check("scaled by CPU", [m.get("resource", {}).get("name") for m in hpa["metrics"]] == ["cpu"])
    r.check("scales the server", hpa["scaleTargetRef"]["name"] == r.get("Deployment")["metadata"]["name"])
    r.check("up fast, down slowly", hpa["behavior"]["scaleUp"]["stabilizationWindowSeconds"]
            < hpa["behavior"]["scaleDown"]["stabilizationWindowSeconds"])
    environment = r.environment()
    names = ["LISTEN", "HTTP_LISTEN", "REPLICA", "MODEL", "DEVICE", "BATCH_SIZE", "CACHE_SIZE", "CACHE_TTL", "REDIS_URL",
             "CACHE_SECRET", "DRAIN_TIMEOUT", "LOG"]
    r.check("the server is told its settings", all("CODE_EXPLAINER_" + name in environment for name in names))
    r.check("the password comes before the address that uses it", list(environment).index("REDIS_PASSWORD")
            < list(environment).index("CODE_EXPLAINER_REDIS_URL"))
    r.check("Redis is found by its name", environment["CODE_EXPLAINER_REDIS_URL"]
            == "redis://:$(REDIS_PASSWORD)@%s:6379/0" % r.get("Service", "-redis")["metadata"]["name"])
    r.check("Redis wants the password", "requirepass $REDIS_PASSWORD"
            in r.get("StatefulSet", "-redis")["spec"]["template"]["spec"]["containers"][0]["args"][0])
    r.check("no GPU", "nvidia.com/gpu" not in r.server()["containers"][0]["resources"]["limits"])
    return r


def gpu():
    r = render("gpu")
    container = r.server()["containers"][0]
    metrics = [m["pods"]["metric"]["name"] for m in r.get("HorizontalPodAutoscaler")["spec"]["metrics"] if "pods" in m]
    r.check("scaled by GPU utilization and queue", metrics == ["DCGM_FI_DEV_GPU_UTIL", "code_explainer_queue_depth"])
    rules = yaml.safe_load(r.get("ConfigMap", "-adapter-rules")["data"]["config.yaml"])["rules"]
    r.check("the adapter makes the same metrics", [rule["name"]["as"] for rule in rules] == metrics)
    r.check("a GPU for each pod", container["resources"]["limits"]["nvidia.com/gpu"] == 1)
    r.check("memory stays limited", container["resources"]["limits"]["memory"] == "4Gi")
    r.check("goes where GPUs are", r.server()["tolerations"][0]["key"] == "nvidia.com/gpu")
    r.check("runs the NVIDIA runtime", r.server()["runtimeClassName"] == "nvidia")
    r.check("does not fall back to the CPU", r.environment()["CODE_EXPLAINER_DEVICE"] == "cuda")
    r.check("large numbers stay whole", r.environment()["CODE_EXPLAINER_KV_CACHE_TOKENS"] == "131072")
    r.check("the model is on the volume", r.environment()["CODE_EXPLAINER_MODEL"] == "/models/qwen2.5-coder/model.gguf"
            and {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}}
            in r.server()["volumes"])
    monitor = r.get("ServiceMonitor")["spec"]
    scraped = [o["metadata"]["name"] for o in r.objects if o["kind"] == "Service"
               and monitor["selector"]["matchLabels"].items() <= o["metadata"]["labels"].items()
               and monitor["endpoints"][0]["port"] in [p["name"] for p in o["spec"]["ports"]]]
    r.check("each server is scraped once", scraped == ["demo-code-explainer"])
    gateway = {"podSelector": {"matchLabels": {"app": "mesh-gateway"}}}
    r.check("a balancer of the operator's own is let in, too", let_in(r, "-server")["grpc"]
            == [pods(r, "Deployment", "-envoy"), gateway])
    watchers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}}]
    r.check("metrics are for another namespace", let_in(r, "-server")["http"] == watchers)
    return r


def minimal():
    r = render("minimal")
    r.check("nothing around the server", r.kinds() == {"Deployment", "Service"} and len(r.objects) == 3)
    r.check("one server", r.get("Deployment")["spec"]["replicas"] == 1)
    r.check("no Redis", "CODE_EXPLAINER_REDIS_URL" not in r.environment())
    r.check("the namespace's own account", r.server()["serviceAccountName"] == "default")
    return r


def external_redis():
    r = render("external-redis")
    r.check("no Redis of its own", "StatefulSet" not in r.kinds())
    r.check("the address is in the operator's Secret", r.environment()["CODE_EXPLAINER_REDIS_URL"]
            == {"secretKeyRef": {"name": "shared-redis", "key": "url"}})
    r.check("the balancer is open to the outside", r.get("Service", "-envoy")["spec"]["type"] == "LoadBalancer")
    script = r.server()["initContainers"][0]["args"][0]
    r.check("the balancer is open to some", let_in(r, "-envoy")["grpc"] == [{"ipBlock": {"cidr": "192.0.2.0/24"}}])
    r.check("every namespace may scrape", let_in(r, "-server")["http"] == [{"namespaceSelector": {}}])
    r.check("an image is known by its contents", r.server()["containers"][0]["image"]
            == "code-explainer:1.2.3@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
    r.check("a secret of the cache's, for a Redis that others have", "CODE_EXPLAINER_CACHE_SECRET" in r.environment())
    r.check("the model is checked before it is used", script.index("sha256sum -c") < script.index("mv "))
    r.check("the server reads what was downloaded", r.environment()["CODE_EXPLAINER_MODEL"] == "/models/model.gguf")
    return r


def access():
    r = render("access")
    env, server = r.environment(), r.server()
    wanted = {"AUTH_FILE": "/etc/code-explainer/auth/identities", "TLS_CERT": "/etc/code-explainer/tls/tls.crt",
              "TLS_KEY": "/etc/code-explainer/tls/tls.key", "TLS_CLIENT_CA": "/etc/code-explainer/tls/ca.crt",
              "TLS_CLIENT_AUTH": "optional", "RATE_ITEMS": "600/min", "RATE_TOKENS": "200000/min", "REDACT_SECRETS": "on"}
    for name, value in wanted.items():
        r.check("%s is %s" % (name, value), env.get("CODE_EXPLAINER_" + name) == value)
    secrets = {v["name"]: v["secret"]["secretName"] for v in server["volumes"] if "secret" in v}
    r.check("secrets are mounted", secrets == {"auth": "explainer-keys", "tls": "explainer-tls"})
    mounts = {m["name"]: m for m in server["containers"][0]["volumeMounts"]}
    r.check("and cannot be written", all(mounts[name].get("readOnly") for name in secrets))
    r.check("the probe speaks no TLS", "httpGet" in server["containers"][0]["readinessProbe"])
    for message, *arguments in (
            ("envoy.enabled to false", "--set", "access.tlsSecret=x", "--set", "access.clientCertificates=required"),
            ("needs access.tlsSecret", "--set", "envoy.enabled=false", "--set", "access.clientCertificates=required"),
            ("needs access.authSecret", "--set", "envoy.enabled=false", "--set", "access.tlsSecret=x",
             "--set", "access.clientCertificates=optional")):
        check("refused: " + message, message in helm(*arguments)[1])
    return r


def envoy_ends_tls():
    r = render("default", "--set", "access.tlsSecret=explainer-tls", "--set", "access.authSecret=explainer-keys")
    config = r.get("ConfigMap", "-envoy")["data"]
    listener = yaml.safe_load(config["envoy.yaml"])["static_resources"]["listeners"][0]
    context = listener["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    r.check("Envoy speaks HTTP/2 over TLS", context["alpn_protocols"] == ["h2"])
    certificate = yaml.safe_load(config["certificate.yaml"])["resources"][0]["tls_certificate"]
    r.check("a changed certificate is noticed", certificate["watched_directory"]["path"] == "/etc/envoy-tls")
    pod = r.get("Deployment", "-envoy")["spec"]["template"]["spec"]
    secrets = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    r.check("Envoy has the secret, the servers have not", secrets == {"tls": "explainer-tls"}
            and "CODE_EXPLAINER_TLS_CERT" not in r.environment() and "CODE_EXPLAINER_AUTH_FILE" in r.environment())
    return r


def bad_values_are_refused():
    for values, word in (
            (["server.batchsize=8"], "batchsize"),
            (["server.batchSize=0"], "batchSize"),
            (["image.digest=latest"], "digest"),
            (["redis.image.digest=sha256:12"], "digest"),
            (["model.memory=lock"], "memory"),
            (["server.device=tpu"], "device"),
            (["server.precision=int3"], "precision"),
            (["server.grpcPort=70000"], "grpcPort"),
            (["model.source=pvc"], "existingClaim"),
            (["model.source=url", "model.url.address=https://example.com/x"], "sha256"),
            (["redis.mode=external"], "external"),
            (["redis.mode=maybe"], "mode"),
            (["resources.limits.memory=lots"], "memory"),
            (["autoscaling.gpuUtilization=0"], "gpuUtilization"),
            (["autoscaling.minReplicas=9"], "minReplicas"),
            (["envoy.service.type=Magic"], "type")):
        objects, error = helm(*[word for value in values for word in ("--set", value)])
        check("%s is refused by name, not with: %s" % (", ".join(values), error), not objects and word in error)


def readme_lists_the_values():
    """Each value by its name, and short defaults as they are."""
    def flat(values, prefix=""):
        for key, value in values.items():
            if isinstance(value, dict) and value and key != "resources":
                yield from flat(value, prefix + key + ".")
            else:
                yield prefix + key, value

    values = dict(flat(yaml.safe_load((CHART / "values.yaml").read_text())))
    rows = [line.split("|") for line in (CHART / "README.md").read_text().splitlines() if line.startswith("| `")]
    table = {row[1].strip(" `"): row[2].strip(" `") for row in rows}
    check("the README lists the values: %s" % sorted(values.keys() ^ table.keys()), values.keys() == table.keys())
    for name in values.keys() & table.keys():
        if not name.endswith("resources"):
            check("the README's default of %s" % name, yaml.safe_load(table[name]) == values[name])


def envoy_itself_agrees(rendered):
    """Where an envoy is installed; what it says is not counted on a machine without it."""
    with tempfile.TemporaryDirectory() as directory:
        for name, text in rendered.get("ConfigMap", "-envoy")["data"].items():
            (Path(directory) / name).write_text(text.replace("/etc/envoy/", directory + "/"))
        try:
            done = subprocess.run(["envoy", "--mode", "validate", "--config-path", directory + "/envoy.yaml"],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True)
        except FileNotFoundError:
            print("there is no envoy on PATH: its configuration was read, not run")
            return
    rendered.check("Envoy takes its configuration: " + done.stdout + done.stderr, done.returncode == 0)


def main():
    everything = [default(), gpu(), minimal(), external_redis(), access(), envoy_ends_tls()]
    for rendered in everything:
        manifests_are_valid(rendered)
        selectors_match(rendered)
        ports_exist(rendered)
        policies_name_ports(rendered)
        pods_are_confined(rendered)
        server_stops_in_order(rendered)
        if rendered.get("ConfigMap", "-envoy"):
            envoy_balances(rendered)
    check("four of six have a balancer", sum(bool(r.get("ConfigMap", "-envoy")) for r in everything) == 4)
    bad_values_are_refused()
    readme_lists_the_values()
    envoy_itself_agrees(everything[0])
    envoy_itself_agrees(everything[-1])
    print("chart: %d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
