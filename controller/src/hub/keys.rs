//! Keys: which device each phone's name belongs to, as the Phones record it. Who is in no Phone is nobody, whatever certificate it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use polyphony_identity::Digest;

/// The digests of keys, by the name of the Phone that records them.
pub type Keys = Arc<BTreeMap<String, String>>;

/// Whether the Phone of that name records that key; of nobody, until the API has been read.
pub fn is_recorded(keys: Option<&Keys>, phone: &str, key: &Digest) -> bool {
    keys.is_some_and(|keys| keys.get(phone).is_some_and(|recorded| *recorded == key.to_string()))
}
