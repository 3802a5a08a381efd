#!/usr/bin/env bash
# Packs the app, node-agent/android/app, with the agent's libraries that `make android` built, as target/android/polyphony.apk: for Android 7.0 and
# later, signed with a debug key.
#
#   scripts/apk.sh [--without-library]     that flag packs an app that says it has no agent: to try the packing
#
# No package of Debian's has an SDK. What there is: Android 6.0's own classes for javac, what the app uses of later ones as signatures (app/stubs),
# Android 13's resources for aapt, and dx. With ANDROID_HOME set, by an SDK's android.jar, aapt and d8 instead; that has never been run here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly APP=node-agent/android/app
# The app's; its manifest says it too.
readonly API_LEVEL=24

skip() {
    printf 'skipped: apk needs %s\n' "$1" >&2
    exit 0
}
fail() {
    printf 'apk: %s\n' "$1" >&2
    exit 1
}

with_library=true
case "${1:-} $#" in
    " 0") ;;
    "--without-library 1") with_library=false ;;
    *) fail "it is scripts/apk.sh [--without-library]" ;;
esac

target=${CARGO_TARGET_DIR:-target}/android
build=$target/app
cache=${POLYPHONY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/polyphony}/apk
mkdir -p "$target" "$cache"
# An old one is not to be taken for what is made here.
rm -rf -- "$build" "$target/polyphony.apk"
mkdir -p "$build"/{generated,stubs,classes,packed}

for abi in arm64-v8a x86_64; do
    library=$target/$abi/libpolyphony_app.so
    if $with_library && [[ -f $library ]]; then
        install -D -m 644 "$library" "$build/packed/lib/$abi/libpolyphony_app.so"
    fi
done
[[ -d $build/packed/lib ]] || ! $with_library ||
    fail "no $target/…/libpolyphony_app.so: \`make android\` builds it, and --without-library packs an app that has no agent"

# A package of another Debian, of which one file is kept.
fetch() {
    local suite=$1 package=$2 file=$3 kept=$4 scratch
    [[ ! -f $kept ]] || return 0
    scratch=$(mktemp -d "$cache/$package.XXXXXX")
    # shellcheck disable=SC2154 # set by what is sourced
    if ! unpack_packages "$suite" amd64 "$scratch" "$package" || [[ ! -f $scratch/$file ]]; then
        rm -rf -- "$scratch"
        skip "the package $package of Debian's $suite: ${apt_said:-it has no $file}"
    fi
    mv -- "$scratch/$file" "$kept"
    rm -rf -- "$scratch"
}

if [[ -n ${ANDROID_HOME:-} ]]; then
    # Never run here.
    warnings=-nowarn
    newest() { compgen -G "$1" | sort -V | tail -n 1; }
    platform=$(newest "$ANDROID_HOME/platforms/android-*/android.jar") || true
    tools=$(newest "$ANDROID_HOME/build-tools/*") || true
    [[ -n $platform && -n $tools ]] || fail "ANDROID_HOME, $ANDROID_HOME, has no platforms/…/android.jar or no build-tools"
    PATH=$tools:$PATH
    resources=$platform
    for program in javac jar keytool aapt d8 zipalign apksigner; do
        command -v "$program" >/dev/null || fail "there is no $program, neither in $tools nor on the PATH"
    done
    dex() { d8 --release --min-api $API_LEVEL --lib "$platform" --output "$1" "$2"; }
else
    # The last two are for scripts/check-apk.sh.
    packages=(openjdk-17-jdk-headless aapt zipalign apksigner dexdump unzip)
    missing=$(for package in "${packages[@]}"; do
        [[ $(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || printf '%s ' "$package"
    done)
    if [[ -n $missing ]]; then
        { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; } || skip "${missing% }: \`apt-get install ${missing% }\` as root, on Debian 12"
        printf 'apk: installing %sby apt-get\n' "$missing" >&2
        # shellcheck disable=SC2086 # several words on purpose
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-remove --no-install-recommends $missing; } \
            >"$build/apt.log" 2>&1 || skip "${missing% }: $(tail -n 1 "$build/apt.log")"
    fi
    # shellcheck source-path=SCRIPTDIR source=debian-packages.sh
    source scripts/debian-packages.sh
    resources=$cache/framework-res.apk platform=$cache/android-23.jar dx=$cache/dx.jar
    # The first whose names have Android 12's data extraction rules.
    fetch trixie android-framework-res usr/share/android-framework-res/framework-res.apk "$resources"
    # The last that has these two.
    fetch bullseye libandroid-23-java usr/share/java/com.android.android-23.jar "$platform"
    fetch bullseye dalvik-exchange usr/share/java/com.android.dx-10.0.0.jar "$dx"
    mapfile -t stubs < <(find $APP/stubs -name '*.java')
    javac --release 8 -Xlint:all,-options -Werror -cp "$platform" -d "$build/stubs" "${stubs[@]}"
    warnings=-Werror
    # What is newer is found first.
    platform=$build/stubs:$platform
    dex() { java -cp "$dx" com.android.dx.command.Main --dex --min-sdk-version=$API_LEVEL --output="$1/classes.dex" "$2"; }
fi

# One version for all of the project, and a number that rises with it.
version=$(sed -n '0,/^version = /s/^version = "\(.*\)"$/\1/p' Cargo.toml)
IFS=. read -r major minor patch <<<"${version%%[-+]*}"
package_resources() {
    aapt package -f -M $APP/AndroidManifest.xml -S $APP/res -I "$resources" --version-name "$version" \
        --version-code $((major * 1000000 + minor * 1000 + patch)) "$@"
}

package_resources -m -J "$build/generated"
mapfile -t sources < <(find $APP/src "$build/generated" -name '*.java')
# Java 8 has no calls that Android 7.0 lacks, and none that dx cannot read.
javac --release 8 -Xlint:all,-options,-deprecation "$warnings" -cp "$platform" -d "$build/classes" "${sources[@]}"
jar --create --file "$build/classes.jar" -C "$build/classes" .
dex "$build/packed" "$build/classes.jar"

# The libraries are compressed, and laid out as files when the app is installed (extractNativeLibs in the manifest). Loaded from within the package
# they would have to lie at multiples of 16 KiB for phones with such pages, which Debian's zipalign cannot do for them alone and its apksigner does
# not keep. As files, only their segments have to be aligned: scripts/check-apk.sh looks. The price is their size once more on the phone.
package_resources -F "$build/whole.apk" "$build/packed"
zipalign -f 4 "$build/whole.apk" "$build/aligned.apk"

# Never in git. A phone takes a newer version only if it is signed with the same key, so it is made once for each machine.
key=$cache/debug.p12
if [[ ! -f $key ]]; then
    rm -f -- "$key.new"
    (umask 077 && keytool -genkeypair -keystore "$key.new" -storetype PKCS12 -storepass android -alias debug -keyalg EC -groupname secp256r1 \
        -validity 10000 -dname "CN=Polyphony debug" >"$build/keytool.log" 2>&1) || fail "no debug key: $(tail -n 1 "$build/keytool.log")"
    mv -- "$key.new" "$key"
fi
# The first scheme is for what is older than Android 7.0.
apksigner sign --ks "$key" --ks-pass pass:android --min-sdk-version $API_LEVEL --v1-signing-enabled false --v2-signing-enabled true \
    --v3-signing-enabled true --out "$build/signed.apk" "$build/aligned.apk"
mv -- "$build/signed.apk" "$target/polyphony.apk"
printf 'apk: %s, version %s, %d KiB%s\n' "$target/polyphony.apk" "$version" $(($(stat --format %s "$target/polyphony.apk") >> 10)) \
    "$($with_library || printf ', without the agent')"
scripts/check-apk.sh "$target/polyphony.apk"
