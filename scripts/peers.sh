#!/usr/bin/env bash
# Builds llama.cpp, to measure beside it, from the PyPI source package `llama-cpp-python`, into $POLYPHONY_CACHE/peers; about 15
# minutes on two cores, once. Then writes the models that `make bench-peers` reads, each re-quantised by llama.cpp itself.
#
# scripts/peers.sh [avx2|vulkan]…: builds one that knows no more than AVX2, or one for Vulkan, beside it. For Vulkan it needs Debian's glslc, and
# newer headers than Debian 12's, which it takes from a later Debian's packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

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
readonly SOURCE=$peers/llama_cpp_python-${PACKAGE#*==}
mkdir -p "$peers"
command -v python3 >/dev/null && command -v c++ >/dev/null ||
    die "python3 and a C++ compiler are needed: on Debian \`apt-get install python3-venv g++\` as root"

PATH=$peers/venv/bin:$PATH

# The tools and the source, once.
fetch() {
    [[ -x $peers/venv/bin/ninja ]] || {
        python3 -m venv "$peers/venv"
        "$peers/venv/bin/pip" install --quiet cmake ninja scikit-build-core
    }
    local archive=$SOURCE.tar.gz
    if [[ ! -f $archive ]]; then
        say "fetching $PACKAGE, 77 MB; once"
        pip download --quiet --no-deps --no-binary llama-cpp-python --no-build-isolation --dest "$peers" "$PACKAGE"
    fi
    printf '%s  %s\n' "$SHA256" "$archive" | sha256sum --check --status - ||
        die "$archive is not what was expected; delete it and start again"
    [[ -d $SOURCE ]] || {
        # Beside its place first: what is there is whole.
        local unpacked
        unpacked=$(mktemp -d -p "$peers")
        tar -xzf "$archive" -C "$unpacked"
        mv -- "$unpacked/${SOURCE##*/}" "$SOURCE"
        rmdir -- "$unpacked"
    }
}

# build FOLDER PROGRAMS FLAG…: what is not built yet.
build() {
    local folder=$peers/$1 programs=$2 missing=0
    for program in $programs; do [[ -x $folder/bin/$program ]] || missing=1; done
    ((missing)) || return 0
    fetch
    say "building llama.cpp into $1; about 15 minutes on two cores, once"
    cmake -S "$SOURCE/vendor/llama.cpp" -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_UI=OFF -DBUILD_SHARED_LIBS=ON "${@:3}" >"$peers/log" || die "cmake fails: see $peers/log"
    # shellcheck disable=SC2086
    ninja -C "$folder" $programs >>"$peers/log" || die "it does not build: see $peers/log"
}

# Beside the build for Vulkan its own measure of one operation, where a product is timed for a hundredth of the work: on a driver made of
# software the original takes minutes for each. Unoptimised, for what is timed are the build's libraries.
build_few_runs() {
    local folder=$peers/build-vulkan source=$SOURCE/vendor/llama.cpp
    [[ ! -x $folder/bin/few-runs-backend-ops ]] || return 0
    fetch
    sed 's/target_flops_gpu = 100ULL \*/target_flops_gpu = 1ULL */' "$source/tests/test-backend-ops.cpp" >"$folder/few-runs-backend-ops.cpp"
    ! cmp -s "$source/tests/test-backend-ops.cpp" "$folder/few-runs-backend-ops.cpp" || die "test-backend-ops.cpp has changed: see what it runs now"
    ninja -C "$folder" llama-common >>"$peers/log" || die "it does not build: see $peers/log"
    c++ -std=c++17 -O0 "$folder/few-runs-backend-ops.cpp" -o "$folder/bin/few-runs-backend-ops" \
        -I"$source/include" -I"$source/ggml/include" -I"$source/ggml/src" -I"$source/common" -I"$source/vendor" \
        -L"$folder/bin" -Wl,-rpath,'$ORIGIN' -lllama-common -lllama -lggml -lggml-base -lggml-cpu -lggml-vulkan -lpthread >>"$peers/log" 2>&1 ||
        die "it does not build: see $peers/log"
}

build build "llama-bench llama-batched-bench llama-quantize ggml-rpc-server" -DGGML_NATIVE=ON -DGGML_RPC=ON
for kind in "$@"; do
    case $kind in
        avx2)
            build build-avx2 "llama-bench llama-batched-bench" -DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON
            ;;
        vulkan)
            command -v glslc >/dev/null || die "glslc is needed: on Debian \`apt-get install glslc\` as root"
            # shellcheck source-path=SCRIPTDIR source=debian-packages.sh
            source scripts/debian-packages.sh
            headers=$peers/headers
            # shellcheck disable=SC2154 # set by what is sourced
            [[ -d $headers ]] || unpack_packages trixie "$(dpkg --print-architecture)" "$headers" libvulkan-dev spirv-headers ||
                die "Vulkan's headers of Debian's trixie cannot be had ($apt_said)"
            spirv=$(dirname "$(find "$headers" -name SPIRV-HeadersConfig.cmake -print -quit)")
            library=$(find /usr/lib -name 'libvulkan.so*' -print -quit)
            build build-vulkan llama-bench -DGGML_NATIVE=ON -DGGML_VULKAN=ON "-DVulkan_INCLUDE_DIR=$headers/usr/include" \
                "-DVulkan_LIBRARY=$library" "-DSPIRV-Headers_DIR=$spirv"
            build_few_runs
            ;;
        *) die "$kind is none of avx2 and vulkan" ;;
    esac
done

[[ -f $cache/models/$SOURCE_MODEL ]] || die "$SOURCE_MODEL is missing: \`make setup\` fetches it"
for quantisation in Q4_0 Q4_K_M Q8_0; do
    model=$cache/models/SmolLM2-135M-Instruct.requantised-$quantisation.gguf
    [[ -f $model ]] && continue
    say "re-quantising to $quantisation"
    "$build/bin/llama-quantize" --allow-requantize "$cache/models/$SOURCE_MODEL" "$model.part" "$quantisation" >>"$peers/log" 2>&1 ||
        die "llama-quantize failed: see $peers/log"
    mv -- "$model.part" "$model"
done
