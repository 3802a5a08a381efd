# shellcheck shell=bash
# Sourced by tests of scripts: what is expected of commands, counted. `scratch` is a folder of the test's.

n_passed=0
n_failed=0

# is WHAT EXPECTED COMMAND…: it prints that, and ends well.
is() {
    local what=$1 expected=$2 found status=0
    shift 2
    # shellcheck disable=SC2154 # of who sources this
    found=$("$@" 2>"$scratch/said") || status=$?
    if [[ $found == "$expected" && $status == 0 ]]; then
        printf 'ok: %s\n' "$what"
        ((++n_passed))
    else
        printf 'FAILED: %s: `%s` and status %s, `%s` expected\n' "$what" "$found" "$status" "$expected"
        sed 's/^/    /' "$scratch/said"
        ((++n_failed))
    fi
}

# status_of COMMAND…: how it ends, whatever it says.
status_of() {
    local status=0
    "$@" >/dev/null 2>&1 || status=$?
    echo "$status"
}

# listening PORT…: which of them take connections on this machine.
listening() {
    local port
    for port in "$@"; do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; fi
    done
}

# told NAME: the tally; fails where anything has.
told() {
    printf '%s\n%d passed, %d failed\n' "$1" "$n_passed" "$n_failed"
    ((n_failed == 0))
}
