//! Tuning: how products are dealt out to lanes on this device, and which kernels are used at all. All that are give the same bits, of a row alone
//! as of one beside others, so tuning is no numerics class.

use std::path::Path;

use super::{Options, kept};
use crate::engine::EngineError;
use crate::wgsl::Lanes;

mod measure;

/// What suits a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuning {
    /// By rows of activations, as [`TOKENS`], and by rows of the matrix: few, many. `None`: kernels for so many are not used.
    lanes: [Option<[Lanes; 2]>; 3],
    /// Whether workgroups of attention take several rows, and whether they share the positions of one.
    pub queries_together: bool,
    pub positions_split: bool,
}

/// Rows of activations that kernels take.
const TOKENS: [usize; 3] = [1, 4, 8];
/// What is kept, with a number that is raised when kernels have changed so that what was measured says nothing of them.
const KEPT: &str = "tuning-3";
/// From so many rows on a matrix has many.
const MANY_ROWS: usize = 4096;

// === impl Tuning ===

impl Tuning {
    /// The same for all.
    pub fn all(lanes: Lanes, is_software: bool) -> Self {
        // Eight rows of activations at once are no faster where the processor plays the GPU, and take seconds to compile.
        let of_eight = (!is_software).then_some([lanes; 2]);
        Self { lanes: [Some([lanes; 2]), Some([lanes; 2]), of_eight], ..Self::usual(is_software) }
    }

    /// What suits most devices of the kind.
    pub fn usual(is_software: bool) -> Self {
        if is_software {
            // Outputs of a lane share what fetching the activations costs.
            let lanes = Some([Lanes { n_rows: 4, workgroup: 32, n_splits: 1 }; 2]);
            return Self { lanes: [lanes, lanes, None], queries_together: true, positions_split: false };
        }
        // Matrices of few rows keep a GPU busy by their columns alone.
        let [few, many] = [4, 1].map(|n_splits| Lanes { n_rows: 1, workgroup: 64, n_splits });
        Self { lanes: [Some([few, many]); 3], queries_together: true, positions_split: true }
    }

    /// The same as far as the device's compiler is up to it. SwiftShader's was seen to take under a second for attention of six queries a workgroup, 24 s
    /// for eight, and for twelve more than four minutes, with 4.6 GB half-way; a row alone has four at most.
    pub fn compiled_by(self, device: &str) -> Self {
        let is_swiftshader = device.to_lowercase().contains("swiftshader");
        Self { queries_together: self.queries_together && !is_swiftshader, ..self }
    }

    /// How many rows of activations a kernel takes where so many are left: as few as hold them all, or else as many as there is one for, but no
    /// more than `most`, which is 4 at least.
    pub fn tokens(&self, n_left: usize, most: usize) -> u32 {
        let used = TOKENS.into_iter().zip(&self.lanes).filter(|(n_tokens, lanes)| *n_tokens <= most && lanes.is_some());
        let mut used = used.map(|(n_tokens, _)| n_tokens);
        let holding = used.clone().find(|n_tokens| *n_tokens >= n_left);
        holding.or_else(|| used.next_back()).unwrap_or(1) as u32
    }

    pub fn lanes(&self, n_tokens: u32, n_rows: usize) -> Lanes {
        let class = TOKENS.iter().position(|n| *n == n_tokens as usize);
        // Products with experts take a row at a time, even where there is no kernel for one among those that are alike.
        let of_class = class.and_then(|class| self.lanes[class]).or_else(|| self.lanes.into_iter().flatten().next());
        of_class
            .map_or(Lanes { n_rows: 1, workgroup: 64, n_splits: 1 }, |lanes| lanes[usize::from(n_rows >= MANY_ROWS)])
    }

    /// Reads what an earlier run measured on this device, or measures now and keeps it. The options say where weights lie and what the device is.
    pub fn of(device: &str, options: &Options, folder: &Path) -> Result<Self, EngineError> {
        let Options { arithmetic, source, is_software, .. } = options;
        let kind = if *is_software == Some(true) { "software" } else { "hardware" };
        let source = source.map_or_else(String::new, |source| format!("{source:?}"));
        let name = format!("{device}-{kind}-{arithmetic:?}-{source}");
        let place = folder.join(kept::file_name(KEPT, &name));
        if let Some(tuning) = kept::read(&place).and_then(|bytes| Self::from_bytes(&bytes)) {
            return Ok(tuning);
        }
        let tuning = measure::best(Options { cache: None, ..options.clone() })?;
        kept::write(&place, &tuning.to_bytes());
        Ok(tuning)
    }

    /// Six bytes of lanes for each of [`TOKENS`], zeros where there are none, and two of attention.
    fn to_bytes(self) -> Vec<u8> {
        let of_lanes = |lanes: Lanes| [lanes.n_rows as u8, lanes.workgroup as u8, lanes.n_splits as u8];
        let of_class = |lanes: Option<[Lanes; 2]>| lanes.map_or([[0; 3]; 2], |lanes| lanes.map(of_lanes));
        let mut bytes = self.lanes.map(of_class).as_flattened().as_flattened().to_vec();
        bytes.extend([self.queries_together, self.positions_split].map(u8::from));
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (lanes, &[queries_together, positions_split]) = bytes.split_last_chunk()?;
        let lanes: &[u8; 18] = lanes.try_into().ok()?;
        let mut found = [None; 3];
        for (found, bytes) in found.iter_mut().zip(lanes.as_chunks::<6>().0) {
            let lanes = |at: usize| Lanes {
                n_rows: bytes[at].into(),
                workgroup: bytes[at + 1].into(),
                n_splits: bytes[at + 2].into(),
            };
            if *bytes != [0; 6] {
                *found = Some([lanes(0), lanes(3)]);
            }
        }
        let is_known = |lanes: &Lanes| measure::candidates(false).contains(lanes);
        let are_known = found.iter().flatten().flatten().all(is_known) && found.iter().any(Option::is_some);
        let are_flags = queries_together <= 1 && positions_split <= 1;
        let [queries_together, positions_split] = [queries_together, positions_split].map(|flag| flag == 1);
        (are_known && are_flags).then_some(Self { lanes: found, queries_together, positions_split })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANES: Lanes = Lanes { n_rows: 2, workgroup: 64, n_splits: 1 };

    #[test]
    fn what_is_kept_comes_back_and_what_is_damaged_does_not() {
        let mut tuning = Tuning::all(LANES, true);
        tuning.lanes[1] = Some([LANES, Lanes { n_rows: 4, workgroup: 64, n_splits: 8 }]);
        assert_eq!(Tuning::from_bytes(&tuning.to_bytes()), Some(tuning));
        tuning.queries_together = false;
        assert_eq!(Tuning::from_bytes(&tuning.to_bytes()), Some(tuning));
        for (at, byte) in [(0, 3), (2, 3), (18, 2), (19, 2)] {
            let mut bytes = tuning.to_bytes();
            bytes[at] = byte;
            assert_eq!(Tuning::from_bytes(&bytes), None);
        }
        assert_eq!(Tuning::from_bytes(&tuning.to_bytes()[1..]), None);
        assert_eq!(Tuning::from_bytes(&[0; 20]), None);
    }

    #[test]
    fn swiftshader_is_not_asked_to_compile_what_takes_it_minutes() {
        for is_software in [true, false] {
            let usual = Tuning::usual(is_software);
            assert_eq!(usual.compiled_by("llvmpipe (LLVM 15.0.6, 256 bits)"), usual);
            let of_swiftshader = usual.compiled_by("SwiftShader Device (LLVM 10.0.0)");
            assert_eq!(of_swiftshader, Tuning { queries_together: false, ..usual });
        }
    }

    #[test]
    fn a_kernel_holds_the_rows_that_are_left_or_as_many_as_there_is_one_for() {
        let of = |used: [bool; 3]| {
            let lanes = used.map(|used| used.then_some([LANES; 2]));
            let tuning = Tuning { lanes, ..Tuning::usual(false) };
            [1, 2, 4, 5, 8, 9].map(|n_left| tuning.tokens(n_left, 8))
        };
        assert_eq!(of([true, true, true]), [1, 4, 4, 8, 8, 8]);
        assert_eq!(of([true, true, false]), [1, 4, 4, 4, 4, 4]);
        assert_eq!(of([false, true, true]), [4, 4, 4, 8, 8, 8]);
        assert_eq!(of([true, false, false]), [1; 6]);
        assert_eq!(of([true, false, true]), [1, 8, 8, 8, 8, 8]);
        assert_eq!(Tuning::usual(false).tokens(9, 4), 4);
    }
}
