"""Are these manifests legal, and do they agree with themselves? python manifests.py FILE…

Every kind that Kubernetes itself knows is held against its schema; of the others only what refers to them. Prints the
ConfigMap's khala.toml.
"""

import sys

import kubernetes_validate
import yaml

OTHERS = {"ServiceMonitor"}


def of(documents, kind):
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def main(paths):
    documents = [document for path in paths for document in yaml.safe_load_all(open(path, encoding="utf-8"))]
    for document in documents:
        if document["kind"] not in OTHERS:
            kubernetes_validate.validate(document, "1.30", strict=True)
    deployment, service, monitor = (of(documents, kind) for kind in ("Deployment", "Service", "ServiceMonitor"))
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert of(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert of(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert {port["name"] for port in service["spec"]["ports"]} == {e["port"] for e in monitor["spec"]["endpoints"]}
    (container,) = pod["spec"]["containers"]
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert volumes["config"]["configMap"]["name"] == of(documents, "ConfigMap")["metadata"]["name"]
    assert pod["spec"]["serviceAccountName"] == of(documents, "ServiceAccount")["metadata"]["name"]
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "http"}, probe
    print(of(documents, "ConfigMap")["data"]["khala.toml"])


main(sys.argv[1:])
