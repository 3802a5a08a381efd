//! Golden data of an encoder–decoder model: every split gives its logits, and the encoder's output takes the short way.

use std::fs;
use std::path::{Path, PathBuf};

use polyphony_agent::segment::{
    AnySegment, Capacity, DecoderRow, EncoderDecoderSegment, Input, Output, Rounding, Segment, SegmentError,
};
use polyphony_kernels::{Backend, Engine, KvType, Row};
use polyphony_model::{Edge, EdgeKind, Holds, LayerRange, Manifest, TensorEntry, TensorReader};
use polyphony_protocol::ActivationType;
use polyphony_protocol::activation::{decode_rows, encode_rows};
use serde::Deserialize;

use crate::engines::open;
use crate::golden::{CPU, VULKAN, vulkan_is_here};

#[derive(Deserialize)]
pub struct Golden {
    pub decoder_start: u32,
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
pub struct Case {
    pub prompt_ids: Vec<u32>,
    encoder_output_first8: Vec<f32>,
    first_logits: Vec<f32>,
    pub steps: Vec<Step>,
}

#[derive(Deserialize)]
pub struct Step {
    pub token: u32,
    top: Vec<(u32, f32)>,
}

/// f32 arithmetic; the golden file rounds to 5 decimals, and a right engine is well within.
const BOUND: f32 = 2e-4;
const CAPACITY: Capacity = Capacity { n_slots: 3, n_positions: 64, max_rows: 16 };

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/golden/tiny")
}

pub fn golden() -> Golden {
    serde_json::from_slice(&fs::read(folder().join("t5.json")).unwrap()).unwrap()
}

/// The segments of the model, in one process, with hidden states as they travel on a wire between them.
pub struct Graph {
    segments: Vec<EncoderDecoderSegment>,
    edges: Vec<Edge>,
    activation_type: ActivationType,
}

impl Graph {
    pub fn load(cuts: &[u32], backend: Backend, rounding: impl Into<Rounding>) -> Self {
        Self::load_on(&folder().join("t5.gguf"), cuts, || open(backend).unwrap(), rounding)
    }

    /// As [`Graph::load`], of another file, on engines that `open` opens.
    pub fn load_on(
        path: &Path,
        cuts: &[u32],
        open: impl Fn() -> Box<dyn Engine>,
        rounding: impl Into<Rounding>,
    ) -> Self {
        let rounding = rounding.into();
        let manifest = Manifest::build(path).unwrap();
        let bytes_of = |tensor: &TensorEntry| -> Result<Vec<u8>, SegmentError> {
            Ok(TensorReader::open(path, &manifest, tensor).unwrap().read_all().unwrap())
        };
        let n_layers = manifest.hyperparameters.n_layers;
        let bounds: Vec<u32> = [0].iter().chain(cuts).chain([n_layers].iter()).copied().collect();
        let held = bounds.windows(2).map(|range| {
            let layers = LayerRange { from: range[0], to: range[1] };
            Holds { embedding: range[0] == 0, layers, head: range[1] == n_layers }
        });
        let held: Vec<Holds> = held.collect();
        let edges = manifest.hyperparameters.edges(&held);
        let segments = held
            .into_iter()
            .map(|holds| EncoderDecoderSegment::load(open(), &manifest, holds, CAPACITY, rounding, bytes_of).unwrap());
        Self { segments: segments.collect(), edges, activation_type: rounding.activation_type }
    }

    fn over_the_wire(&self, values: &[f32]) -> Vec<f32> {
        let width = self.segments[0].hidden_size();
        let payload = encode_rows(self.activation_type, width, values);
        decode_rows(self.activation_type, width, values.len() / width, &payload).unwrap()
    }

    /// Where a segment's hidden states go.
    fn next_of(&self, from: usize) -> Option<usize> {
        let is_next = |edge: &&Edge| edge.from == from && edge.kind == EdgeKind::Sequential;
        self.edges.iter().find(is_next).map(|edge| edge.to)
    }

    /// A prompt through the encoder; what comes out goes to every segment of the decoder.
    pub fn encode(&mut self, slot: u32, prompt: &[u32]) -> Vec<f32> {
        let mut at = 0;
        let mut values = self.segments[at].encode(prompt.len(), Input::Tokens(prompt.to_vec())).unwrap();
        while let Some(next) = self.next_of(at).filter(|next| self.segments[*next].encodes()) {
            at = next;
            let input = Input::Hidden(self.over_the_wire(&values));
            values = self.segments[at].encode(prompt.len(), input).unwrap();
        }
        // What stays here has not travelled.
        if self.segments[at].decodes() {
            self.segments[at].take_encoded(slot, values.clone()).unwrap();
        }
        for edge in self.edges.clone().iter().filter(|edge| edge.kind == EdgeKind::Skip) {
            assert_eq!(edge.from, at);
            let encoded = self.over_the_wire(&values);
            self.segments[edge.to].take_encoded(slot, encoded).unwrap();
        }
        values
    }

    /// One step of some sessions, each a row; the logits of all rows.
    pub fn step(&mut self, rows: &[DecoderRow], tokens: Vec<u32>) -> Vec<f32> {
        let mut at = self.segments.iter().position(EncoderDecoderSegment::decodes).unwrap();
        let mut input = Input::Tokens(tokens);
        loop {
            match self.segments[at].step(rows, input, rows.len()).unwrap() {
                Output::Logits(logits) => return logits,
                Output::Hidden(values) => input = Input::Hidden(self.over_the_wire(&values)),
            }
            at = self.next_of(at).expect("the tail gives logits");
        }
    }
}

fn best(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32
}

/// All cases side by side, each a session of its own, so that one step holds rows of prompts of different lengths.
fn gives_its_golden_logits(graph: &mut Graph) {
    let golden = golden();
    for (slot, case) in golden.cases.iter().enumerate() {
        let encoded = graph.encode(slot as u32, &case.prompt_ids);
        let width = graph.segments[0].hidden_size();
        for (found, expected) in encoded[encoded.len() - width..].iter().zip(&case.encoder_output_first8) {
            assert!((found - expected).abs() <= BOUND, "encoder, case {slot}: {found}, {expected}");
        }
    }
    let mut tokens = vec![golden.decoder_start; golden.cases.len()];
    let mut farthest = 0_f32;
    for position in 0..golden.cases[0].steps.len() {
        let row = |(slot, case): (usize, &Case)| DecoderRow {
            row: Row { slot: slot as u32, position: position as u32 },
            n_encoded: case.prompt_ids.len() as u32,
        };
        let rows: Vec<DecoderRow> = golden.cases.iter().enumerate().map(row).collect();
        let logits = graph.step(&rows, tokens);
        let vocab = logits.len() / rows.len();
        tokens = Vec::new();
        for (case, logits) in golden.cases.iter().zip(logits.chunks(vocab)) {
            let step = &case.steps[position];
            let mut expected = step.top.clone();
            if position == 0 {
                expected.extend(case.first_logits.iter().enumerate().map(|(id, logit)| (id as u32, *logit)));
            }
            for (id, expected) in expected {
                let off = (logits[id as usize] - expected).abs();
                farthest = farthest.max(off);
                assert!(off <= BOUND, "step {position}, token {id}: off by {off}");
            }
            assert_eq!(best(logits), step.token, "step {position}");
            tokens.push(step.token);
        }
    }
    println!("off by at most {farthest}");
}

/// Cuts within the encoder, within the decoder, between them, and in both; the model has 4 + 4 layers.
const CUTS: [&[u32]; 6] = [&[], &[4], &[2], &[6], &[2, 6], &[1, 3, 4, 5, 7]];

#[test]
fn a_tiny_t5_gives_its_golden_logits_on_the_cpu_however_it_is_cut() {
    for cuts in CUTS {
        println!("cut at {cuts:?}");
        gives_its_golden_logits(&mut Graph::load(cuts, CPU, ActivationType::F32));
    }
}

#[test]
fn a_tiny_t5_gives_its_golden_logits_on_vulkan() {
    if !vulkan_is_here() {
        return;
    }
    for cuts in [&[][..], &[2, 6]] {
        gives_its_golden_logits(&mut Graph::load(cuts, VULKAN, ActivationType::F32));
    }
}

/// Greedy tokens and the bits of some logits; the sessions of all cases step alone.
fn greedy(graph: &mut Graph) -> Vec<(u32, u32)> {
    let golden = golden();
    let mut found = Vec::new();
    for case in &golden.cases {
        graph.encode(1, &case.prompt_ids);
        let mut token = golden.decoder_start;
        for position in 0..20 {
            let n_encoded = case.prompt_ids.len() as u32;
            let logits = graph.step(&[DecoderRow { row: Row { slot: 1, position }, n_encoded }], vec![token]);
            token = best(&logits);
            found.push((token, logits[7].to_bits()));
        }
    }
    found
}

#[test]
fn every_split_of_a_t5_gives_the_same_bits_whatever_travels() {
    for activation_type in [ActivationType::F32, ActivationType::F16, ActivationType::Q8] {
        let whole = greedy(&mut Graph::load(&[], CPU, activation_type));
        for cuts in CUTS {
            assert_eq!(greedy(&mut Graph::load(cuts, CPU, activation_type)), whole, "{cuts:?}, {activation_type:?}");
        }
    }
}

#[test]
fn every_split_of_a_t5_gives_the_same_bits_whatever_its_keys_are_kept_in() {
    let mut all = Vec::new();
    for kv_type in KvType::ALL {
        let rounding = Rounding { activation_type: ActivationType::F16, kv_type };
        let whole = greedy(&mut Graph::load(&[], CPU, rounding));
        for cuts in CUTS {
            assert_eq!(greedy(&mut Graph::load(cuts, CPU, rounding)), whole, "{cuts:?}, {kv_type:?}");
        }
        assert!(!all.contains(&whole), "{kv_type:?} keeps what another type does");
        all.push(whole);
    }
}

/// A segment as a phone loads it.
fn any_segment(model: &str, holds: Option<Holds>) -> AnySegment {
    let path = folder().join(model);
    let manifest = Manifest::build(&path).unwrap();
    let engine = polyphony_kernels::open(CPU, None).unwrap();
    let holds = holds.unwrap_or(Holds::all(manifest.hyperparameters.n_layers));
    AnySegment::load(engine, &manifest, holds, CAPACITY, ActivationType::F16, |tensor| {
        Ok::<_, SegmentError>(TensorReader::open(&path, &manifest, tensor).unwrap().read_all().unwrap())
    })
    .unwrap()
}

#[test]
fn a_model_is_loaded_as_what_it_is_and_refuses_what_the_other_kind_does() {
    let mut t5 = any_segment("t5.gguf", None);
    assert!(matches!(t5, AnySegment::EncoderDecoder(_)));
    assert_eq!((t5.n_encoding_layers(t5.holds()), t5.n_decoding_layers(t5.holds())), (4, 4));
    let error = t5.with_movable_cache().err().unwrap().to_string();
    assert!(error.contains("is not handed over; its sessions are replayed"), "{error}");
    let mut llama = any_segment("llama.gguf", None);
    assert!(matches!(llama, AnySegment::DecoderOnly(_)));
    assert!(matches!(llama.with_encoder(), Err(SegmentError::NoEncoder { .. })));
    let manifest = Manifest::build(&folder().join("t5.gguf")).unwrap();
    let engine = polyphony_kernels::open(CPU, None).unwrap();
    let load = Segment::load(engine, &manifest, Holds::all(8), CAPACITY, ActivationType::F32, |_| {
        Err::<Vec<u8>, _>(SegmentError::TooManyRows { rows: 0, limit: 0 })
    });
    assert!(matches!(load, Err(SegmentError::HasEncoder { .. })));
}

#[test]
fn a_trial_times_the_layers_that_decode_or_else_those_that_encode() {
    let part = |from, to| Holds { embedding: from == 0, layers: LayerRange { from, to }, head: to == 8 };
    for (from, to, n_timed) in [(0, 8, 4), (0, 3, 3), (2, 4, 2), (3, 6, 2), (4, 7, 3), (6, 8, 2)] {
        let (_, figures) = polyphony_agent::trial::run(&mut any_segment("t5.gguf", Some(part(from, to)))).unwrap();
        assert_eq!(figures.layers_timed, n_timed, "layers {from} to {to}");
        assert!(figures.seconds_per_layer.is_some_and(|seconds| seconds > 0.0), "layers {from} to {to}: {figures:?}");
    }
}

/// A later plan runs a part of what an earlier one has loaded.
#[test]
fn a_part_of_what_is_loaded_computes_what_it_would_alone() {
    let mut graph = Graph::load(&[3, 6], CPU, ActivationType::F16);
    let expected = greedy(&mut graph);
    let mut whole: Vec<EncoderDecoderSegment> = Graph::load(&[], CPU, ActivationType::F16).segments;
    let segment = &mut whole[0];
    let parts = [(0, 3), (3, 6), (6, 8)].map(|(from, to)| Holds {
        embedding: from == 0,
        layers: LayerRange { from, to },
        head: to == 8,
    });
    let case = &golden().cases[0];
    let n_encoded = case.prompt_ids.len();
    let values = segment.encode_of(parts[0], n_encoded, Input::Tokens(case.prompt_ids.clone())).unwrap();
    let encoded = segment.encode_of(parts[1], n_encoded, Input::Hidden(values)).unwrap();
    segment.take_encoded_of(parts[1], 1, encoded.clone()).unwrap();
    segment.take_encoded_of(parts[2], 1, encoded).unwrap();
    let mut token = golden().decoder_start;
    for (position, expected) in (0..20).zip(expected) {
        let row = DecoderRow { row: Row { slot: 1, position }, n_encoded: n_encoded as u32 };
        let Output::Hidden(values) = segment.step_of(parts[1], &[row], Input::Tokens(vec![token]), 1).unwrap() else {
            panic!("the second part has no head")
        };
        let Output::Logits(logits) = segment.step_of(parts[2], &[row], Input::Hidden(values), 1).unwrap() else {
            panic!("the third part has the head")
        };
        token = best(&logits);
        assert_eq!((token, logits[7].to_bits()), expected);
    }
    let beyond = Holds { layers: LayerRange { from: 3, to: 9 }, ..parts[1] };
    assert!(matches!(segment.encode_of(beyond, 1, Input::Tokens(vec![1])), Err(SegmentError::NotLoaded { .. })));
}

#[test]
fn an_encoder_takes_no_decoding_step_and_a_decoder_no_prompt() {
    let mut graph = Graph::load(&[4], CPU, ActivationType::F32);
    let row = DecoderRow { row: Row { slot: 0, position: 0 }, n_encoded: 1 };
    assert!(graph.segments[0].step(&[row], Input::Tokens(vec![1]), 1).is_err());
    assert!(graph.segments[0].take_encoded(0, vec![0.0; 64]).is_err());
    assert!(graph.segments[1].encode(1, Input::Tokens(vec![1])).is_err());
    let too_long = CAPACITY.n_positions + 1;
    assert!(graph.segments[0].encode(too_long, Input::Tokens(vec![1; too_long])).is_err());
    assert!(graph.segments[1].take_encoded(0, vec![0.0; 63]).is_err());
    assert!(graph.segments[1].take_encoded(3, vec![0.0; 64]).is_err());
    let beyond = DecoderRow { n_encoded: 65, ..row };
    assert!(graph.segments[1].step(&[beyond], Input::Tokens(vec![1]), 1).is_err());
}
