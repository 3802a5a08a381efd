# shellcheck shell=bash
# Sourced by what runs the agent that `make android` built.

# What it is built for.
readonly AGENT_ABIS=(arm64-v8a x86_64)

# require_agent NAME BASE ABI…: BASE/ABI/polyphony-agent are there, and none is older than what it is made of. Ends the script with the reason otherwise;
# NAME is who asks.
require_agent() {
    local name=$1 base=$2 abi folders newer
    shift 2
    for abi in "$@"; do
        if [[ ! -x $base/$abi/polyphony-agent ]]; then
            printf '%s: the agent is not built for %s: `make android` builds it\n' "$name" "$abi" >&2
            exit 1
        fi
    done
    folders=$(folders_of polyphony-agent) || true
    if [[ -z $folders ]]; then
        printf '%s: cargo and python3 do not tell what the agent is made of, and whether it is an old one is not known\n' "$name" >&2
        return
    fi
    for abi in "$@"; do
        newer=$(xargs -d '\n' sh -c 'file=$1; shift; find "$@" \( -name target -o -name tests -o -name benches -o -name examples -o -name fuzz -o -path "*/android/app" -o -path "*/android/stand-in" \) -prune -o \
            -type f \( -name "*.rs" -o -name "*.wgsl" -o -name "*.toml" -o -name "*.c" -o -name "*.S" -o -name libraries.txt \) -newer "$file" -print' \
            sh "$base/$abi/polyphony-agent" Cargo.lock Cargo.toml <<<"$folders" | head -n 1) || true
        if [[ -n $newer ]]; then
            printf '%s: the agent for %s is an old one, %s is newer: `make android` builds it\n' "$name" "$abi" "$newer" >&2
            exit 1
        fi
    done
}

# folders_of PACKAGE: those of the crates of this workspace that it is made of; what its tests alone need is left out. Of manifests alone: crates of
# other systems, which a whole answer of cargo's is made of as well, need not have been fetched.
folders_of() {
    cargo metadata --locked --offline --no-deps --format-version 1 2>/dev/null | python3 -c '
import json, os, sys

packages = {os.path.dirname(package["manifest_path"]): package for package in json.load(sys.stdin)["packages"]}
waiting = [folder for folder, package in packages.items() if package["name"] == sys.argv[1]]
found = set()
while waiting:
    folder = waiting.pop()
    if folder not in found and folder in packages:
        found.add(folder)
        waiting += [d["path"] for d in packages[folder]["dependencies"] if d.get("path") and d["kind"] != "dev"]
print("\n".join(sorted(found)))
' "$1"
}

# abi_of ADB SERIAL: the ABI of the agent that a device runs, by its own list, the favourite first. Fails, and prints what there is, where it runs none.
abi_of() {
    local list abi
    # Before there were lists there was a property for one.
    list=$(timeout 30 "$1" -s "$2" shell 'getprop ro.product.cpu.abilist; getprop ro.product.cpu.abi' </dev/null 2>/dev/null | tr -d '\r') || true
    for abi in ${list//,/ }; do
        [[ " ${AGENT_ABIS[*]} " != *" $abi "* ]] || { echo "$abi"; return; }
    done
    echo "${list%%$'\n'*}"
    return 1
}
