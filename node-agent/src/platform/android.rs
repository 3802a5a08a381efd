//! Android: what only its system properties tell. The rest is Linux's, as far as Android lets a program read it.

use android_system_properties::AndroidSystemProperties;
use polyphony_protocol::hub::Hardware;

/// The phone by its maker's names.
pub(super) fn hardware() -> Hardware {
    let properties = AndroidSystemProperties::new();
    let get = |name: &str| properties.get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let soc = joined([get("ro.soc.manufacturer"), get("ro.soc.model")]);
    let level = get("ro.build.version.sdk").map(|level| format!("(API level {level})"));
    Hardware {
        model: joined([get("ro.product.manufacturer"), get("ro.product.model")]),
        // Systems before Android 12 name the board alone.
        soc: soc.or_else(|| get("ro.board.platform")),
        system: joined([get("ro.build.version.release").map(|release| format!("Android {release}")), level]),
    }
}

fn joined(words: [Option<String>; 2]) -> Option<String> {
    let words: Vec<String> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(" "))
}
