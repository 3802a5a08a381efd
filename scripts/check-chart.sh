#!/usr/bin/env bash
# Checks the Helm chart: lint, rendering with several values, and every rendered object against Kubernetes' own schemas.
#
# Needs what `scripts/setup.sh chart` fetches: helm and a validator. Installs nothing anywhere and needs no cluster.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly CHART=charts/polyphony
# The oldest cluster that the chart takes, and the one that its helm speaks.
readonly KUBERNETES_VERSIONS="1.27 1.35"

cache=${POLYPHONY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/polyphony}
helm=$cache/bin/helm
[[ -x $helm ]] || helm=$(command -v helm) || { echo "helm is missing: run scripts/setup.sh chart" >&2; exit 1; }
python=$cache/venv/bin/python
"$python" -c 'import kubernetes_validate' 2>/dev/null ||
    { echo "the validator is missing: run scripts/setup.sh chart" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
# Nothing of this person's helm is read or written.
export HELM_CONFIG_HOME=$scratch/helm HELM_CACHE_HOME=$scratch/helm HELM_DATA_HOME=$scratch/helm

failed=0
step() {
    local what=$1
    shift
    if "$@" >"$scratch/said" 2>&1; then
        echo "ok: $what"
    else
        echo "FAILED: $what"
        sed 's/^/    /' "$scratch/said"
        failed=1
    fi
}

render() {
    "$helm" template rel "$CHART" --namespace lab "$@"
}

# Rendering with these values fails, and the reason holds these words.
is_refused() {
    local words=$1
    shift
    if render "$@" >"$scratch/refusal" 2>&1; then
        echo "it was rendered"
        return 1
    fi
    grep -qF -- "$words" "$scratch/refusal" || { cat "$scratch/refusal"; return 1; }
}

step "helm lint" "$helm" lint --strict "$CHART"
for values in "$CHART"/ci/*.yaml; do
    name=$(basename "$values" .yaml)
    step "helm lint, values $name" "$helm" lint --strict "$CHART" --values "$values"
    render --values "$values" >"$scratch/$name.yaml" 2>"$scratch/said" || { cat "$scratch/said"; exit 1; }
    step "objects, values $name" "$python" scripts/check-chart.py "$scratch/$name.yaml" $KUBERNETES_VERSIONS
done
# Of an older chart: nobody is to believe that it still does something.
step "a value that is no more is refused" is_refused "lab" --set lab.insecure=true
step "a misspelt value is refused" is_refused "noAut" --set gateway.noAut=true
step "a value of a wrong type is refused" is_refused "gracePeriod" --set controller.gracePeriod=30
step "an account that is neither made nor named is refused" is_refused "serviceAccount.name" --set serviceAccount.create=false

"$helm" package "$CHART" --destination "$scratch" >"$scratch/said" 2>&1 || { cat "$scratch/said"; exit 1; }
tar -xzf "$scratch"/polyphony-*.tgz -C "$scratch"
step "a packed chart holds the definitions of manifests/crds, and no others" diff -r manifests/crds "$scratch/polyphony/crds"
step "a packed chart holds the dashboards" diff -r "$CHART/dashboards" "$scratch/polyphony/dashboards"
exit "$failed"
