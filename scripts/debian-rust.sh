# shellcheck shell=bash
# Sourced by what compiles for another machine with Debian's Rust, which brings its standard library as source. Nothing else has to be fetched for a target then.
#
# Reads `name` (who asks) and `packages`; ends the script, in green and with one line, where they are missing and root cannot install them.

# The compiler that the workspace asks for at least: Debian has older ones under the same name.
least=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
apt_log=$(mktemp)
trap 'rm -f -- "$apt_log"' EXIT

missing_packages() {
    local package status version
    for package in "${packages[@]}"; do
        read -r status version <<<"$(dpkg-query --show --showformat '${db:Status-Status} ${Version}' "$package" 2>/dev/null)" || true
        if [[ $status != installed ]] || { [[ $package == *-web* ]] && dpkg --compare-versions "$version" lt "$least"; }; then
            printf '%s ' "$package"
        fi
    done
}

install_missing() {
    local missing=$1
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
    printf '%s: installing %sby apt-get\n' "$name" "$missing" >&2
    # shellcheck disable=SC2086 # several words on purpose
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-remove --no-install-recommends $missing)
    # A fresh machine has no package lists yet, an old one has outdated ones, which name older compilers.
    apt-get update -q >"$apt_log" 2>&1 && "${install[@]}" >"$apt_log" 2>&1 && [[ -z $(missing_packages) ]]
}

missing=$(missing_packages)
if [[ -n $missing ]] && ! install_missing "$missing"; then
    why=$(tail -n 1 "$apt_log")
    printf 'skipped: %s needs %s%s: `apt-get install %s` as root, on Debian 12\n' "$name" "${missing% }" "${why:+ ($why)}" "${missing% }"
    exit 0
fi

# Debian's programs by their places: a PATH with rustup's has another version first.
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
# The standard library is built from source, which only unstable options can ask for.
export RUSTC_BOOTSTRAP=1
# Not the toolchain's wrapper or flags of whoever calls.
unset RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER RUSTFLAGS CARGO_ENCODED_RUSTFLAGS RUSTUP_TOOLCHAIN
