//! Index: which file of a folder each tensor is in, where there are several. It has to agree with what the files say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::FolderError;
use crate::source_files::naming::MAX_FILES;

/// `weight_map` of `model.safetensors.index.json`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// File names by tensor.
    shards: BTreeMap<String, String>,
}

/// The largest known have some MB.
pub(super) const MAX_INDEX_BYTES: u64 = 64 << 20;
const MAX_TENSORS: usize = 1 << 20;

// === impl Index ===

impl Index {
    pub(super) fn parse(json: &[u8]) -> Result<Self, FolderError> {
        #[derive(serde::Deserialize)]
        struct File {
            weight_map: WeightMap,
        }
        let File { weight_map: WeightMap(shards) } =
            serde_json::from_slice(json).map_err(|error| FolderError::Index { why: error.to_string() })?;
        let index = Self { shards };
        let names = index.files();
        if let Some(name) = names.iter().find(|name| !is_shard(name)) {
            return Err(FolderError::ShardName { name: (*name).to_owned() });
        }
        if names.is_empty() || names.len() > MAX_FILES {
            return Err(FolderError::Index { why: format!("`weight_map` names {} files, 1 to {MAX_FILES} expected", names.len()) });
        }
        Ok(index)
    }

    /// The names of all files, in order.
    pub(super) fn files(&self) -> BTreeSet<&str> {
        self.shards.values().map(String::as_str).collect()
    }

    /// Whether each tensor is where this says; `file_of` gives the name of the file that has it.
    ///
    /// # Errors
    /// The first tensor that is in another file or in none.
    pub(super) fn check<'a>(&self, file_of: impl Fn(&str) -> Option<&'a str>) -> Result<(), FolderError> {
        match self.shards.iter().find(|(tensor, shard)| file_of(tensor) != Some(shard.as_str())) {
            Some((tensor, shard)) => Err(FolderError::NotInShard { tensor: tensor.clone(), shard: shard.clone() }),
            None => Ok(()),
        }
    }
}

/// Whether a name is that of a file beside the index and nowhere else.
fn is_shard(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shards;
        impl<'de> Visitor<'de> for Shards {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`weight_map`, an object of file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut shards = BTreeMap::new();
                while let Some((tensor, shard)) = map.next_entry::<String, String>()? {
                    if shards.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format!("`weight_map` has more than {MAX_TENSORS} tensors")));
                    }
                    if shards.contains_key(&tensor) {
                        return Err(A::Error::custom(format!("`weight_map.{tensor}` stands in it twice")));
                    }
                    shards.insert(tensor, shard);
                }
                Ok(WeightMap(shards))
            }
        }
        deserializer.deserialize_map(Shards)
    }
}
