//! Tensors on their way into an engine: what one kernel multiplies at once becomes one matrix. Computes nothing.

use std::collections::BTreeMap;

use polyphony_kernels::{Engine, EngineError, FileBytes, MatrixId, VectorId, WeightType};
use polyphony_model::family::{FeedForward, HeadNorms};
use polyphony_model::{Architecture, Role, TensorEntry, TensorType};

use super::SegmentError;
use super::rows::{Joined, Named, Rows};

/// What an engine holds of a segment, by role and layer.
#[derive(Default)]
pub(super) struct Loaded {
    matrices: BTreeMap<(Role, Option<u32>), MatrixId>,
    vectors: BTreeMap<(Role, Option<u32>), VectorId>,
    /// By the first role of the join.
    joined: BTreeMap<(Role, u32), MatrixId>,
    joined_biases: BTreeMap<(Role, u32), VectorId>,
    /// Biases of matrices that are joined, until the others of their join are there.
    biases: BTreeMap<(Role, u32), Vec<f32>>,
    /// What is joined in this family.
    joins: &'static [Join],
    /// Gate and way up come as one matrix, one after the other.
    fuses_gates: bool,
    /// The values of tables that are loaded in another form.
    tables: BTreeMap<Role, Vec<f32>>,
    /// Wait for the others of their join.
    waiting: BTreeMap<(Role, Option<u32>), Rows>,
}

/// Roles whose matrices multiply the same values, and are joined when they are of one type.
struct Join {
    roles: &'static [Role],
    /// Rows of all taking turns; otherwise one matrix after another.
    takes_turns: bool,
}

const JOINS: [Join; 2] = [
    Join { roles: &[Role::Query, Role::Key, Role::Value], takes_turns: false },
    Join { roles: &[Role::FfnGate, Role::FfnUp], takes_turns: true },
];

/// Biases of the first join, in its order.
const BIASES: [Role; 3] = [Role::QueryBias, Role::KeyBias, Role::ValueBias];

// === impl Loaded ===

impl Loaded {
    /// Nothing yet, of a model of this architecture.
    pub fn new(architecture: Architecture) -> Self {
        let family = architecture.family();
        let first = match family.head_norms {
            HeadNorms::None => 0,
            // Queries and keys are normed before they are used.
            HeadNorms::Each | HeadNorms::All => 1,
        };
        let end = match family.feed_forward {
            FeedForward::Gated | FeedForward::Fused => JOINS.len(),
            // No gate comes that a way up could wait for.
            FeedForward::Plain => 1,
        };
        let (joins, fuses_gates) = (&JOINS[first..end], family.feed_forward == FeedForward::Fused);
        Self { joins, fuses_gates, ..Self::default() }
    }

    /// Takes one tensor to the engine, or keeps it until the others of its join are there.
    pub fn take(
        &mut self,
        engine: &mut dyn Engine,
        tensor: &TensorEntry,
        bytes: Box<dyn FileBytes>,
    ) -> Result<(), SegmentError> {
        let place = (tensor.role, tensor.layer);
        let bytes = Box::new(Named { tensor: tensor.name.clone(), bytes });
        if tensor.role.is_vector() {
            let values = vector_values(tensor, bytes.as_ref())?;
            if tensor.role.is_table() {
                self.tables.insert(tensor.role, values);
                return Ok(());
            }
            self.vectors.insert(place, engine.load_vector(&values)?);
            if let (Some(layer), true) = (tensor.layer, BIASES.contains(&tensor.role)) {
                self.biases.insert((tensor.role, layer), values);
                self.join_biases(engine, layer)?;
            }
            return Ok(());
        }
        let not_a_matrix = || SegmentError::NotAMatrix { name: tensor.name.clone(), shape: tensor.shape.clone() };
        // The matrices of all experts are one, with the rows of one after those of the other.
        let (n_cols, n_rows) = match *tensor.shape.as_slice() {
            [n_cols, n_rows] => (n_cols, Some(n_rows)),
            [n_cols, n_rows, n_experts] if tensor.role.is_of_experts() => (n_cols, n_rows.checked_mul(n_experts)),
            _ => return Err(not_a_matrix()),
        };
        let n_cols = usize::try_from(n_cols).map_err(|_| not_a_matrix())?;
        let n_rows = n_rows.and_then(|n| usize::try_from(n).ok()).ok_or_else(not_a_matrix)?;
        let rows = Rows { weight_type: weight_type(tensor)?, n_rows, n_cols, bytes };
        if let (true, Role::FfnUp, Some(layer)) = (self.fuses_gates, tensor.role, tensor.layer) {
            let fused = match rows.halves_taking_turns() {
                Some(halves) => halves.load(engine)?,
                None => rows.load(engine)?,
            };
            self.joined.insert((Role::FfnGate, layer), fused);
            return Ok(());
        }
        let join = self.joins.iter().find(|join| join.roles.contains(&tensor.role));
        let (Some(join), Some(layer)) = (join, tensor.layer) else {
            self.matrices.insert(place, rows.load(engine)?);
            return Ok(());
        };
        self.waiting.insert(place, rows);
        let parts: Vec<&Rows> = join.roles.iter().filter_map(|role| self.waiting.get(&(*role, Some(layer)))).collect();
        if parts.len() < join.roles.len() {
            return Ok(());
        }
        if let Some(whole) = Joined::of(&parts, join.takes_turns) {
            self.joined.insert((join.roles[0], layer), whole.load(engine)?);
            self.waiting.retain(|(role, of), _| *of != Some(layer) || !join.roles.contains(role));
            return Ok(());
        }
        // They stay apart, and none waits for what does not come.
        for role in join.roles {
            if let Some(rows) = self.waiting.remove(&(*role, Some(layer))) {
                self.matrices.insert((*role, Some(layer)), rows.load(engine)?);
            }
        }
        Ok(())
    }

    fn join_biases(&mut self, engine: &mut dyn Engine, layer: u32) -> Result<(), SegmentError> {
        let parts: Vec<&Vec<f32>> = BIASES.iter().filter_map(|role| self.biases.get(&(*role, layer))).collect();
        if parts.len() == BIASES.len() {
            let whole: Vec<f32> = parts.into_iter().flatten().copied().collect();
            self.joined_biases.insert((BIASES[0], layer), engine.load_vector(&whole)?);
            self.biases.retain(|(_, of), _| *of != layer);
        }
        Ok(())
    }

    /// Takes to the engine what waits for others that the segment does not have.
    pub fn take_rest(&mut self, engine: &mut dyn Engine) -> Result<(), SegmentError> {
        while let Some((place, rows)) = self.waiting.pop_first() {
            self.matrices.insert(place, rows.load(engine)?);
        }
        Ok(())
    }

    pub fn matrix(&self, role: Role, layer: Option<u32>) -> Result<MatrixId, SegmentError> {
        self.matrices.get(&(role, layer)).copied().ok_or(SegmentError::Missing(role))
    }

    pub fn vector(&self, role: Role, layer: Option<u32>) -> Result<VectorId, SegmentError> {
        self.vectors.get(&(role, layer)).copied().ok_or(SegmentError::Missing(role))
    }

    /// The values of a table.
    pub fn table(&self, role: Role) -> Result<&[f32], SegmentError> {
        self.tables.get(&role).map(Vec::as_slice).ok_or(SegmentError::Missing(role))
    }

    /// The vector of `role`, where the model has one.
    pub fn vector_if_any(&self, role: Role, layer: Option<u32>) -> Option<VectorId> {
        self.vectors.get(&(role, layer)).copied()
    }

    /// The biases of queries, keys and values one after another, where the model has them.
    pub fn joined_bias(&self, layer: u32) -> Option<VectorId> {
        self.joined_biases.get(&(BIASES[0], layer)).copied()
    }

    /// The join that begins with `role`, if it was made.
    pub fn joined(&self, role: Role, layer: u32) -> Option<MatrixId> {
        self.joined.get(&(role, layer)).copied()
    }
}

fn weight_type(tensor: &TensorEntry) -> Result<WeightType, SegmentError> {
    let found = tensor.tensor_type;
    WeightType::named(found.name()).ok_or_else(|| SegmentError::UnsupportedType { name: tensor.name.clone(), found })
}

fn vector_values(tensor: &TensorEntry, bytes: &dyn FileBytes) -> Result<Vec<f32>, SegmentError> {
    if tensor.tensor_type != TensorType::F32 {
        return Err(SegmentError::UnsupportedType { name: tensor.name.clone(), found: tensor.tensor_type });
    }
    let expected = tensor.shape.iter().product::<u64>() as usize * 4;
    if bytes.n_bytes() != expected {
        return Err(SegmentError::Length { name: tensor.name.clone(), actual: bytes.n_bytes(), expected });
    }
    let mut values = vec![0; expected];
    bytes.read_at(0, &mut values).map_err(EngineError::Read)?;
    Ok(values.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_is_refused_for_is_what_kernels_do_not_take() {
        use polyphony_kernels::ops::attention::MAX_HEAD_SIZE;
        use polyphony_kernels::ops::route::MAX_CHOSEN;

        for tensor_type in (0..100).filter_map(TensorType::from_number) {
            let tensor = TensorEntry {
                name: "t".into(),
                role: Role::Output,
                layer: None,
                tensor_type,
                shape: vec![32, 1],
                n_bytes: 0,
                sha256: String::new(),
                source: polyphony_model::TensorSource::default(),
            };
            assert_eq!(weight_type(&tensor).is_ok(), tensor_type.is_computed(), "{tensor_type}");
        }
        assert_eq!(TensorType::computed().count(), WeightType::ALL.len());
        for weight_type in WeightType::ALL {
            let same: TensorType = weight_type.name().to_uppercase().parse().expect("both have GGML's names");
            assert_eq!((same.block_values() as usize, same.block_bytes() as usize), weight_type.block(), "{same}");
        }
        assert_eq!(polyphony_model::MAX_HEAD_SIZE as usize, MAX_HEAD_SIZE);
        assert_eq!(polyphony_model::MAX_CHOSEN as usize, MAX_CHOSEN);
    }
}
