#!/usr/bin/env bash
# Fuzzes the readers of files that strangers make: scripts/fuzz.sh [TARGET…], every target of node-agent/model/fuzz unless some are named, one after
# another, ten minutes each (FUZZ_SECONDS). What they find stays in node-agent/model/fuzz/artifacts, and ends this with a failure.
#
# A stable compiler is enough: the targets have coverage and no sanitizer (`cargo fuzz -s none`), since all of it is safe Rust, where a finding is a
# panic, a text that takes longer than ten seconds, or memory over the bound.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SECONDS_EACH=${FUZZ_SECONDS:-600}
readonly LIMIT_MIB=1024
readonly FUZZ=node-agent/model/fuzz

say() { printf 'fuzz: %s\n' "$*" >&2; }

# Files that are written for each input lie in memory: a disk takes a sixtieth of them in the same time.
[[ ! -d /dev/shm ]] || export TMPDIR=/dev/shm
cache=${POLYPHONY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/polyphony}
PATH=$cache/cargo-fuzz/bin:$PATH
cargo fuzz --version >/dev/null 2>&1 || {
    say "installing cargo-fuzz; once"
    cargo install --quiet --locked --root "$cache/cargo-fuzz" cargo-fuzz
}
# What is fuzzed has the dependencies of what is built.
cp Cargo.lock "$FUZZ/Cargo.lock"
rm -rf -- "$FUZZ/seeds"
python3 "$FUZZ/seeds.py" e2e/golden "$FUZZ/seeds"

targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(cargo fuzz list --fuzz-dir "$FUZZ")
cargo fuzz build --fuzz-dir "$FUZZ" --sanitizer none
for target in "${targets[@]}"; do
    say "$target, $SECONDS_EACH s"
    mkdir -p "$FUZZ/corpus/$target"
    (
        # Beyond what libFuzzer counts, nothing is given at all.
        ulimit -v $((8 * LIMIT_MIB * 1024))
        cargo fuzz run --fuzz-dir "$FUZZ" --sanitizer none "$target" "$FUZZ/corpus/$target" "$FUZZ/seeds/$target" -- \
            -dict="$FUZZ/dictionaries/$target.dict" -max_total_time="$SECONDS_EACH" -timeout=10 -max_len=20000 \
            -rss_limit_mb="$LIMIT_MIB" -malloc_limit_mb=$((LIMIT_MIB / 2)) -print_final_stats=1
    )
done
