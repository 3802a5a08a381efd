#!/usr/bin/env bash
# Builds llama.cpp, to measure beside it, from the PyPI source package `llama-cpp-python`, into $POLYPHONY_CACHE/peers; about 15
# minutes on two cores, once. Then writes the models that `make bench-peers` reads, each re-quantised by llama.cpp itself.
set -euo pipefail

readonly PACKAGE=llama-cpp-python==0.3.36
readonly SHA256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
readonly SOURCE_MODEL=SmolLM2-135M-Instruct.Q4_1.gguf

say() { printf 'peers: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

cache=${POLYPHONY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/polyphony}
peers=$cache/peers
build=$peers/build
mkdir -p "$peers"
command -v python3 >/dev/null && command -v c++ >/dev/null ||
    die "python3 and a C++ compiler are needed: on Debian \`apt-get install python3-venv g++\` as root"

if [[ ! -x $build/bin/llama-bench || ! -x $build/bin/llama-batched-bench || ! -x $build/bin/llama-quantize ]]; then
    [[ -x $peers/venv/bin/ninja ]] || {
        python3 -m venv "$peers/venv"
        "$peers/venv/bin/pip" install --quiet cmake ninja scikit-build-core
    }
    PATH=$peers/venv/bin:$PATH
    archive=$peers/llama_cpp_python-${PACKAGE#*==}.tar.gz
    if [[ ! -f $archive ]]; then
        say "fetching $PACKAGE, 77 MB; once"
        pip download --quiet --no-deps --no-binary llama-cpp-python --no-build-isolation --dest "$peers" "$PACKAGE"
    fi
    printf '%s  %s\n' "$SHA256" "$archive" | sha256sum --check --status - ||
        die "$archive is not what was expected; delete it and start again"
    tar -xzf "$archive" -C "$peers"
    say "building llama.cpp for this processor; about 15 minutes on two cores, once"
    cmake -S "${archive%.tar.gz}/vendor/llama.cpp" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DGGML_RPC=ON \
        -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_UI=OFF -DBUILD_SHARED_LIBS=ON >"$peers/log"
    ninja -C "$build" llama-bench llama-batched-bench llama-quantize >>"$peers/log" || die "it does not build: see $peers/log"
fi

[[ -f $cache/models/$SOURCE_MODEL ]] || die "$SOURCE_MODEL is missing: \`make setup\` fetches it"
for quantisation in Q4_0 Q4_K_M Q8_0; do
    model=$cache/models/SmolLM2-135M-Instruct.requantised-$quantisation.gguf
    [[ -f $model ]] && continue
    say "re-quantising to $quantisation"
    "$build/bin/llama-quantize" --allow-requantize "$cache/models/$SOURCE_MODEL" "$model.part" "$quantisation" >>"$peers/log" 2>&1 ||
        die "llama-quantize failed: see $peers/log"
    mv -- "$model.part" "$model"
done
