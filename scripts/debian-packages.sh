# shellcheck shell=bash
# Sourced by what needs Debian's packages: installed, or only their files.

# require_packages NAME PACKAGE…: they are installed then. Ends the script, in green and with one line, where they are missing and root cannot install
# them; NAME is who asks. Of Rust it has to be the version that the workspace asks for at least: Debian has older ones under the same name.
require_packages() {
    local name=$1 missing log why
    shift
    missing=$(missing_packages "$@")
    [[ -n $missing ]] || return 0
    log=$(mktemp)
    if ! install_packages "$name" "$log" "$missing" || [[ -n $(missing_packages "$@") ]]; then
        why=$(tail -n 1 "$log")
        printf 'skipped: %s needs %s%s: `apt-get install %s` as root, on Debian 12\n' "$name" "${missing% }" "${why:+ ($why)}" "${missing% }"
        rm -f -- "$log"
        exit 0
    fi
    rm -f -- "$log"
}

missing_packages() {
    local package status version least
    least=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    for package in "$@"; do
        read -r status version <<<"$(dpkg-query --show --showformat '${db:Status-Status} ${Version}' "$package" 2>/dev/null)" || true
        if [[ $status != installed ]] || { [[ $package == *-web* ]] && dpkg --compare-versions "$version" lt "$least"; }; then
            printf '%s ' "$package"
        fi
    done
}

install_packages() {
    local name=$1 log=$2 missing=$3
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
    printf '%s: installing %sby apt-get\n' "$name" "$missing" >&2
    # shellcheck disable=SC2206 # several words on purpose
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-remove --no-install-recommends $missing)
    # A fresh machine has no package lists yet, an old one has outdated ones, which name older compilers.
    apt-get update -q >"$log" 2>&1 && "${install[@]}" >"$log" 2>&1
}

# Files of packages that are not to be installed, of another architecture or of another Debian: apt fetches them from wherever this machine has its
# packages, with lists of its own, so that the system's stay as they are.
#
# unpack_packages SUITE ARCHITECTURE FOLDER [--with-dependencies] PACKAGE…: what is in them lies in the folder then. Fails with apt's last word in
# $apt_said. With that flag what they depend on is there as well, down to the C library.
unpack_packages() {
    local suite=$1 architecture=$2 folder=$3 scratch status=0 download=(download)
    shift 3
    scratch=$(mktemp -d)
    # Root fetches as another user, who has to come in.
    chmod 755 "$scratch"
    mkdir -p "$scratch"/{lists,cache,state,debs/partial}
    if [[ $1 == --with-dependencies ]]; then
        shift
        # Nothing is installed, so that nobody has to be root.
        download=(-y --no-install-recommends --download-only -o Debug::NoLocking=true -o "Dir::Cache::Archives=$scratch/debs" install)
    fi
    local apt=(apt-get -q -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture" -o "Dir::State=$scratch/state"
        -o "Dir::State::Lists=$scratch/lists" -o "Dir::State::Status=/dev/null" -o "Dir::Cache=$scratch/cache"
        -o "Dir::Etc::SourceList=$scratch/source.list" -o "Dir::Etc::SourceParts=/dev/null")
    {
        printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$(debian_uri)" "$suite" >"$scratch/source.list" &&
            "${apt[@]}" update && (cd "$scratch/debs" && "${apt[@]}" "${download[@]}" "$@") && mkdir -p "$folder" &&
            find "$scratch/debs" -name '*.deb' -print0 | xargs -0 -n 1 sh -c 'dpkg-deb --extract "$1" "$0" || exit 255' "$folder"
    } >"$scratch/log" 2>&1 || status=$?
    # What is half there would be taken for the whole.
    ((status == 0)) || rm -rf -- "$folder"
    # shellcheck disable=SC2034 # for whoever asked
    apt_said=$(tail -n 1 "$scratch/log")
    rm -rf -- "$scratch"
    return "$status"
}

# Where this machine has Debian from: others offer packages for it, too.
debian_uri() {
    # shellcheck disable=SC2016 # apt's variables
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' | awk '$1 == "Debian" && !/security/ { print $2; exit }'
}
