#!/usr/bin/env bash
# The demo: one model over three phones (processes here), none of which could hold it alone, and a question to it.
#
# Every step is shown as a person would type it. Whatever happens, the processes are stopped at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly DATA_DIR=${DEMO_DIR:-target/demo}
# One phone cannot hold the model at this size, two can.
readonly PHONE_MEMORY=${DEMO_PHONE_MEMORY:-112Mi}
readonly BACKEND=${DEMO_BACKEND:-auto}
readonly QUESTION=${DEMO_QUESTION:-What is the capital of France?}

PATH=$(cd "${CARGO_TARGET_DIR:-target}/debug" && pwd):$PATH
export PATH KUBECONFIG=$DATA_DIR/kubeconfig

run() {
    printf '\n\033[1m$ %s\033[0m\n' "${*@Q}" | sed "s/'\([A-Za-z0-9_.,:=/-]*\)'/\1/g"
    "$@"
}

stop() {
    local status=$?
    trap - EXIT INT TERM
    if [[ $status != 0 ]]; then
        printf '\ndemo: stopped with exit code %s; the logs are in %s\n' "$status" "$DATA_DIR" >&2
    fi
    run polyctl down --data-dir "$DATA_DIR" || true
    exit "$status"
}

# An earlier demo that was killed may have left processes and a store behind.
if [[ -e $DATA_DIR ]]; then
    polyctl down --data-dir "$DATA_DIR" >/dev/null 2>&1 || true
    rm -rf -- "$DATA_DIR"
fi
mkdir -p "$DATA_DIR"
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

run polyctl up --phones 3 --phone-memory "$PHONE_MEMORY" --backend "$BACKEND" --data-dir "$DATA_DIR"
run polyctl apply -f manifests/smollm2.yaml
run polyctl wait --for=condition=Available inferencedeployment/smollm2 --timeout=300s
run polyctl get phones -o wide
run polyctl get models
run polyctl get inferencedeployments
run polyctl get segmentplacements
# Greedy, so that every demo gives the same answer.
run polyctl chat smollm2 --temperature 0 "$QUESTION"
