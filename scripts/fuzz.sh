#!/usr/bin/env bash
# Fuzzes the readers of what strangers make: scripts/fuzz.sh [TARGET…], every target of the folders below unless some are named, one after another, ten
# minutes each (FUZZ_SECONDS). What they find stays in the folder's artifacts, and ends this with a failure.
#
# A stable compiler is enough: the targets have coverage and no sanitizer (`cargo fuzz -s none`), since all of it is safe Rust, where a finding is a
# panic, a text that takes longer than ten seconds, or memory over the bound.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SECONDS_EACH=${FUZZ_SECONDS:-600}
readonly LIMIT_MIB=1024
readonly FOLDERS=(node-agent/model/fuzz controller/fuzz)

say() { printf 'fuzz: %s\n' "$*" >&2; }

# Files that are written for each input lie in memory: a disk takes a sixtieth of them in the same time.
[[ ! -d /dev/shm ]] || export TMPDIR=/dev/shm
cache=${POLYPHONY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/polyphony}
# A model with a tokenizer and a chat template, for who reads the bodies of requests.
export FUZZ_MODEL=${FUZZ_MODEL:-$cache/models/SmolLM2-135M-Instruct.Q4_1.gguf}
[[ -f $FUZZ_MODEL ]] || { say "$FUZZ_MODEL is not there: run \`make setup\`, or name a GGUF file with a chat template by FUZZ_MODEL"; exit 1; }
PATH=$cache/cargo-fuzz/bin:$PATH
cargo fuzz --version >/dev/null 2>&1 || {
    say "installing cargo-fuzz; once"
    cargo install --quiet --locked --root "$cache/cargo-fuzz" cargo-fuzz
}

run() {
    local folder=$1 target=$2 options=()
    [[ ! -f $folder/dictionaries/$target.dict ]] || options=("-dict=$folder/dictionaries/$target.dict")
    say "$target, $SECONDS_EACH s"
    mkdir -p "$folder/corpus/$target"
    (
        # Beyond what libFuzzer counts, nothing is given at all.
        ulimit -v $((8 * LIMIT_MIB * 1024))
        cargo fuzz run --fuzz-dir "$folder" --sanitizer none "$target" "$folder/corpus/$target" "$folder/seeds/$target" -- \
            "${options[@]}" -max_total_time="$SECONDS_EACH" -timeout=10 -max_len=20000 \
            -rss_limit_mb="$LIMIT_MIB" -malloc_limit_mb=$((LIMIT_MIB / 2)) -print_final_stats=1
    )
}

found=0
for folder in "${FOLDERS[@]}"; do
    mapfile -t there < <(cargo fuzz list --fuzz-dir "$folder")
    targets=()
    for target in "${there[@]}"; do
        [[ $# -ne 0 && " $* " != *" $target "* ]] || targets+=("$target")
    done
    ((${#targets[@]})) || continue
    found=1
    # What is fuzzed has the dependencies of what is built.
    cp Cargo.lock "$folder/Cargo.lock"
    rm -rf -- "$folder/seeds"
    python3 "$folder/seeds.py" e2e/golden "$folder/seeds"
    cargo fuzz build --fuzz-dir "$folder" --sanitizer none
    for target in "${targets[@]}"; do
        run "$folder" "$target"
    done
done
((found)) || { say "there is no target $*"; exit 1; }
