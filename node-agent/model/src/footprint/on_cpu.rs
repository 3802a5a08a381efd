//! On a processor: what a step takes while it runs, beside the buffers that stay. As `kernels/src/cpu` allocates it.

use super::engine_form::{EngineForm, GROUP};
use super::way::{Kind, Product, Way};

/// Bytes of an op, as a recording holds it.
const OP_BYTES: u64 = 152;
/// Bytes that a processor keeps of each row of activations beside what it keeps of its groups.
const ROW_BYTES: u64 = 72;
/// The same of each group of 32: of 8 bits its words, scale and sums; of f32 its sums.
const INT8_GROUP_BYTES: u64 = 44;
const F32_GROUP_BYTES: u64 = 4;
/// Bytes of a group of one row or strip of a matrix while it is multiplied: its integers, or its scales.
const UNPACKED_GROUP_BYTES: u64 = 136;

// === impl Way ===

impl Way<'_> {
    /// The most that there is at a time: what lasts through the step, and what one op takes or the results do.
    pub(super) fn bytes_on_cpu(&self, form: EngineForm) -> u64 {
        let (values_in, values_out) = self.values_in_and_out();
        let (mut n_products, mut most) = (0, self.route_bytes());
        for product in self.products() {
            n_products += 1;
            most = product.bytes_on_cpu(form).max(most);
        }
        // Lists double as they grow.
        let ops = (self.n_other_ops() + n_products).next_power_of_two().saturating_mul(OP_BYTES);
        let lengths = self.n_lists_of_lengths().saturating_mul(self.n_rows);
        let lasting = values_in.saturating_add(self.angles()).saturating_add(lengths).saturating_mul(4);
        lasting.saturating_add(ops).saturating_add(values_out.saturating_mul(4).max(most))
    }

    /// Of a choice of experts: the numbers of all, in their order, for each row.
    fn route_bytes(&self) -> u64 {
        self.of().experts.map_or(0, |experts| self.n_rows.saturating_mul(8 * u64::from(experts.n_experts) + 24))
    }
}

// === impl Product ===

impl Product {
    /// Its sums before they are turned around, its activations as they are multiplied, and what waits on either side of it.
    fn bytes_on_cpu(&self, form: EngineForm) -> u64 {
        let rows = |n_bytes: u64| self.n_rows.saturating_mul(n_bytes);
        let n_groups = self.n_in.div_ceil(GROUP);
        let activations = match (self.is_quantised, form.is_int8()) {
            (true, true) => rows(ROW_BYTES + INT8_GROUP_BYTES * n_groups),
            (true, false) => rows(ROW_BYTES + F32_GROUP_BYTES * n_groups),
            (false, _) if self.n_in.is_multiple_of(GROUP) => 0,
            (false, _) => rows(4 * GROUP * n_groups),
        };
        let sums = rows(4 * self.n_out);
        let waits = match self.of {
            Kind::Plain => 0,
            Kind::GateUp => sums,
            // At the most all rows have chosen the same.
            Kind::OfExperts { n_chosen, .. } => sums.saturating_add(rows(4 * self.n_in + 16 * n_chosen)),
        };
        let unpacked = n_groups * UNPACKED_GROUP_BYTES;
        sums.saturating_add(activations).saturating_add(waits).saturating_add(unpacked)
    }
}
