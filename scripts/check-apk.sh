#!/usr/bin/env bash
# Is the packed app what its sources mean? Its signature, its manifest, its classes and the agent's entry points in them, its libraries.
#
#   scripts/check-apk.sh [APK]     without one: that of `make apk`
#
# What no file tells, and nothing here says: whether it runs. No package of Debian's has Android's runtime.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PAGE=16384
readonly PERMISSIONS="ACCESS_NETWORK_STATE CAMERA CHANGE_WIFI_MULTICAST_STATE FOREGROUND_SERVICE FOREGROUND_SERVICE_SPECIAL_USE INTERNET
    POST_NOTIFICATIONS RECEIVE_BOOT_COMPLETED REQUEST_IGNORE_BATTERY_OPTIMIZATIONS WAKE_LOCK"
# What the library has to have under these names and of these types: Java's arguments in brackets, then its result.
readonly NATIVE='linkFault (Ljava/lang/String;)Ljava/lang/String;
readCode ([BII)Ljava/lang/String;
start (Ljava/lang/String;Ljava/lang/String;Ljava/lang/String;)Ljava/lang/String;
status ()Ljava/lang/String;
stop (Z)V
tell (Ljava/lang/String;)V'

apk=${1:-${CARGO_TARGET_DIR:-target}/android/polyphony.apk}
[[ -f $apk ]] || { printf "check-apk: there is no %s: \`make apk\` packs it\n" "$apk" >&2; exit 1; }
if [[ -n ${ANDROID_HOME:-} ]]; then
    # Never run here.
    PATH=$(compgen -G "$ANDROID_HOME/build-tools/*" | sort -V | tail -n 1):$PATH
fi
for program in aapt apksigner dexdump readelf unzip; do
    if ! command -v "$program" >/dev/null; then
        printf 'skipped: check-apk needs %s, which scripts/apk.sh installs as root, on Debian 12\n' "$program" >&2
        exit 0
    fi
done

wrong=0
fault() {
    wrong=1
    printf 'check-apk: %s: %s\n' "$apk" "$1" >&2
}
# What it is, what was found, what is expected.
equal() { [[ $2 == "$3" ]] || fault "$1 is ${2:-missing}: ${3:-none} is expected"; }
one_line() { tr '\n' ' ' | sed 's/  */ /g; s/^ //; s/ $//'; }

# === The signature ===
if signature=$(apksigner verify --verbose "$apk" 2>&1); then
    for scheme in v2 v3; do
        grep -q "^Verified using $scheme scheme .*: true" <<<"$signature" || fault "it is not signed by scheme $scheme"
    done
else
    fault "its signature does not hold: $(head -n 1 <<<"$signature")"
fi

# === The manifest ===
badging=$(aapt dump badging "$apk" 2>&1) || fault "aapt cannot read it: $(head -n 1 <<<"$badging")"
equal "its package" "$(sed -n "s/^package: name='\([^']*\)'.*/\1/p" <<<"$badging")" ai.polyphony
equal "its oldest Android" "$(sed -n "s/^sdkVersion:'\(.*\)'/\1/p" <<<"$badging")" 24
equal "its target" "$(sed -n "s/^targetSdkVersion:'\(.*\)'/\1/p" <<<"$badging")" 34
asked=$(sed -n "s/^uses-permission[^:]*: name='\([^']*\)'.*/\1/p" <<<"$badging" | sort -u)
expected=$(one_line <<<"$PERMISSIONS" | tr ' ' '\n' | sed 's/^/android.permission./' | sort)
while read -r permission; do
    fault "it asks for $permission, which is not expected"
done < <(comm -23 <(printf '%s' "${asked:+$asked$'\n'}") <(printf '%s\n' "$expected"))
while read -r permission; do
    fault "it does not ask for $permission"
done < <(comm -13 <(printf '%s' "${asked:+$asked$'\n'}") <(printf '%s\n' "$expected"))

manifest=$(aapt dump xmltree "$apk" AndroidManifest.xml 2>&1) || fault "aapt cannot read its manifest"
# The value of an attribute, of the first element that has it.
attribute() { sed -n "s/^ *A: android:$1(0x[0-9a-f]*)=\(.*\)/\1/p" <<<"$manifest" | head -n 1; }
yes_or_no() { attribute "$1" | sed 's/^(type 0x12)0x0$/false/; s/^(type 0x12)0xffffffff$/true/'; }
equal "allowBackup" "$(yes_or_no allowBackup)" false
equal "extractNativeLibs" "$(yes_or_no extractNativeLibs)" true
[[ $(yes_or_no debuggable) != true ]] || fault "it is debuggable: whoever has the cable could read the device's key"
[[ $(attribute dataExtractionRules) == @* ]] || fault "it has no rules for what is copied to another phone"
type=$(attribute foregroundServiceType)
if [[ $type == @* ]]; then
    type=$(aapt dump --values resources "$apk" | sed -n "s/^ *resource ${type#@} .* d=\(0x[0-9a-f]*\) .*/\1/p" | head -n 1)
fi
equal "its service's type, which is to be specialUse," "${type#(type 0x11)}" 0x40000000
grep -q '="android.app.PROPERTY_SPECIAL_USE_FGS_SUBTYPE"' <<<"$manifest" || fault "it does not say what its special use is"

# === The classes ===
dex=$(dexdump "$apk" 2>&1) || fault "dexdump cannot read its classes: $(head -n 1 <<<"$dex")"
classes=$(sed -n "s/^ *Class descriptor *: 'L\(.*\);'/\1/p" <<<"$dex")
while read -r class; do
    grep -qxF -- "$class" <<<"$classes" || fault "its manifest names ${class//\//.}, and no class is called that"
done < <(awk '/^ *E: / { named = $2 ~ /^(activity|application|provider|receiver|service)$/ }
    named && /^ *A: android:name\(/ { split($0, part, "\""); print part[2] }' <<<"$manifest" |
    sed 's/^\./ai.polyphony./; s/^[^.]*$/ai.polyphony.&/' | tr . /)
while read -r class; do
    [[ -z $class ]] || fault "it holds the class $class, which is not the app's"
done < <(grep -v '^ai/polyphony/' <<<"$classes" || true)
native=$(awk -v class="(in Lai/polyphony/Agent;)" -v quote="'" '/^ *#[0-9]+ *: \(in / { inside = index($0, class) }
    inside && /^ *name *:/ { split($0, part, quote); name = part[2] }
    inside && /^ *type *:/ { split($0, part, quote); type = part[2] }
    inside && /^ *access *:.*STATIC NATIVE/ { print name, type }' <<<"$dex" | sort)
while read -r method; do
    fault "the agent's entry point $method is not declared so in the app"
done < <(comm -13 <(printf '%s\n' "$native") <(printf '%s\n' "$NATIVE"))
while read -r method; do
    [[ -z $method ]] || fault "the app declares an entry point $method, which is not known"
done < <(comm -23 <(printf '%s\n' "$native") <(printf '%s\n' "$NATIVE"))

# === The libraries ===
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
libraries=()
while read -r method path; do
    abi=${path#lib/} abi=${abi%%/*}
    libraries+=("$abi")
    case $path in
        lib/arm64-v8a/libpolyphony_app.so) machine=AArch64 ;;
        lib/x86_64/libpolyphony_app.so) machine="Advanced Micro Devices X86-64" ;;
        *) fault "$path is no library that is expected"; continue ;;
    esac
    [[ $method == Defl* ]] || fault "$path is not compressed: uncompressed it would have to begin at a multiple of $PAGE bytes"
    unzip -q -p "$apk" "$path" >"$scratch/library"
    equal "the machine of $path" "$(readelf --file-header --wide "$scratch/library" | sed -n 's/^ *Machine: *//p')" "$machine"
    aligned=$(readelf --program-headers --wide "$scratch/library" | awk '$1 == "LOAD" { print $NF }' | sort -u)
    [[ -n $aligned ]] || fault "$path has no segments to load"
    for align in $aligned; do
        ((align >= PAGE)) || fault "$path has a segment that is aligned to $align bytes: phones with pages of 16 KiB need $PAGE"
    done
    # Java finds the entry points by these names, unless the library names them itself when it is loaded.
    names=$(readelf --dyn-syms --wide "$scratch/library" | awk '$7 != "UND" { print $8 }')
    while read -r method _; do
        grep -qxE "Java_ai_polyphony_Agent_$method|JNI_OnLoad" <<<"$names" || fault "$path has no Java_ai_polyphony_Agent_$method"
    done <<<"$NATIVE"
done < <(unzip -v "$apk" | awk '$NF ~ /^lib\// { print $2, $NF }')

((wrong)) || printf 'check-apk: %s: signed, for Android 7.0 and later, %d classes, %s\n' "$apk" "$(wc -l <<<"$classes")" \
    "$( ((${#libraries[@]})) && printf 'with the agent for %s' "${libraries[*]}" || printf 'without the agent')"
exit "$wrong"
