"""Judges the objects that the chart rendered: each by the schema of its kind, all together by what must be true of them.

    check-chart.py RENDERED.yaml KUBERNETES_VERSION...
"""

import json
import pathlib
import re
import sys

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
# No schema of these kinds is at hand; they are of Prometheus Operator.
WITHOUT_SCHEMA = {"ServiceMonitor", "ScrapeConfig"}
CLUSTER_SCOPED = {"Namespace", "ClusterRole", "ClusterRoleBinding"}


def main(rendered: str, versions: list[str]) -> list[str]:
    objects = [one for one in yaml.safe_load_all(open(rendered)) if one]
    faults = []
    for one in objects:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] not in WITHOUT_SCHEMA:
            for version in versions:
                try:
                    kubernetes_validate.validate(one, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    place = ".".join(map(str, error.path))
                    faults.append(f"{name} for Kubernetes {version}: {place}: {error.message}")
        if (one["kind"] in CLUSTER_SCOPED) == ("namespace" in one["metadata"]):
            faults.append(f"{name}: a namespace where none belongs, or none where one does")
        if len(one["metadata"]["name"]) > 63:
            faults.append(f"{name}: the name is over 63 characters")
    keys = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
    faults += [f"{key} is rendered twice" for key in set(keys) if keys.count(key) > 1]
    by_kind = lambda kind: [one for one in objects if one["kind"] == kind]
    [deployment] = by_kind("Deployment")
    faults += judge_pod(deployment["spec"]["template"], by_kind)
    faults += judge_access(deployment, by_kind)
    faults += judge_dashboards(by_kind("ConfigMap"))
    return faults


def judge_pod(template: dict, by_kind) -> list[str]:
    faults = []
    spec, [container] = template["spec"], template["spec"]["containers"]
    for section, key, wanted in [
        (spec["securityContext"], "runAsNonRoot", True),
        (container["securityContext"], "readOnlyRootFilesystem", True),
        (container["securityContext"], "allowPrivilegeEscalation", False),
        (container["securityContext"], "capabilities", {"drop": ["ALL"]}),
    ]:
        if section.get(key) != wanted:
            faults.append(f"the pod's {key} is {section.get(key)}, not {wanted}")
    flags = (ROOT / "controller/src/flags.rs").read_text()
    known = {field.replace("_", "-") for field in re.findall(r"^    pub (\w+):", flags, re.M)} | {"help"}
    for argument in container["args"]:
        if argument.split("=")[0].removeprefix("--") not in known:
            faults.append(f"polyphony-controller has no flag {argument}")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listened = {argument.split("-address=")[0].removeprefix("--"): int(argument.rsplit(":", 1)[1]) for argument in container["args"] if "-address=" in argument}
    if ports != listened:
        faults.append(f"the container's ports are {ports}, the addresses' {listened}")
    labels = template["metadata"]["labels"].items()
    services = by_kind("Service")
    if {service["spec"]["ports"][0]["targetPort"] for service in services} != set(ports):
        faults.append("the Services are not one for each port")
    for chosen in [*(service["spec"]["selector"] for service in services), *(policy["spec"]["podSelector"]["matchLabels"] for policy in by_kind("NetworkPolicy"))]:
        if not chosen.items() <= labels:
            faults.append(f"the selector {chosen} does not choose the pod")
    for monitor in by_kind("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        if sum(wanted <= service["metadata"]["labels"].items() for service in services) != 1:
            faults.append("the ServiceMonitor does not choose exactly one Service")
    volumes = {volume["name"] for volume in spec["volumes"]}
    if volumes != {mount["name"] for mount in container["volumeMounts"]}:
        faults.append("the volumes are not those that are mounted")
    return faults


def judge_access(deployment: dict, by_kind) -> list[str]:
    faults = []
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    roles = {(role["kind"], role["metadata"]["name"]): role for role in by_kind("ClusterRole") + by_kind("Role")}
    for role in roles.values():
        words = [word for rule in role["rules"] for key in ("apiGroups", "resources", "verbs") for word in rule[key]]
        if "*" in words:
            faults.append(f"{role['metadata']['name']} grants everything of something")
    for binding in by_kind("ClusterRoleBinding") + by_kind("RoleBinding"):
        if (binding["roleRef"]["kind"], binding["roleRef"]["name"]) not in roles:
            faults.append(f"{binding['metadata']['name']} binds a role that is not there")
        if [subject["name"] for subject in binding["subjects"]] != [account]:
            faults.append(f"{binding['metadata']['name']} does not bind the pod's account")
    return faults


def judge_dashboards(config_maps: list[dict]) -> list[str]:
    faults = []
    dashboards = [one for one in config_maps if "-dashboard-" in one["metadata"]["name"]]
    for one in dashboards:
        if one["metadata"]["labels"].get("grafana_dashboard") != "1":
            faults.append(f"{one['metadata']['name']} lacks the label of Grafana's sidecar")
        for file, text in one["data"].items():
            source = ROOT / "charts/polyphony/dashboards" / file.removeprefix("polyphony-")
            if json.loads(text) != json.loads(source.read_text()):
                faults.append(f"{file} is not {source}")
    if len(dashboards) not in (0, 2):
        faults.append(f"{len(dashboards)} dashboards are rendered, not two")
    return faults


if __name__ == "__main__":
    faults = main(sys.argv[1], sys.argv[2:])
    print("\n".join(faults))
    sys.exit(bool(faults))
