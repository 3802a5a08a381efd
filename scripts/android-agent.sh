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
    # The crates of this workspace that it depends on, and nothing of their tests. Plain words where cargo cannot tell them.
    folders=$(cargo tree --locked --offline --package polyphony-agent --edges normal,build --target all --prefix none --format '{p}' 2>/dev/null |
        sed -n 's|^.* (\(/[^)]*\)).*$|\1|p' | sort -u)
    if [[ -z $folders ]]; then
        printf '%s: cargo does not tell what the agent is made of, and whether it is an old one is not known\n' "$name" >&2
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
