//! Segment graphs: edges for every way to cut.

use polyphony_model::{Edge, EdgeKind, Gguf, Holds, Hyperparameters, LayerRange};

use crate::files;

fn edges(model: &str, cuts: &[u32]) -> Vec<(usize, usize, EdgeKind)> {
    let of = Hyperparameters::from_gguf(&Gguf::open(&files::tiny(model)).unwrap()).unwrap();
    let bounds: Vec<u32> = [0].iter().chain(cuts).chain([of.n_layers].iter()).copied().collect();
    let holds = |range: &[u32]| Holds {
        embedding: range[0] == 0,
        layers: LayerRange::from(range[0]..range[1]),
        head: range[1] == of.n_layers,
    };
    let segments: Vec<Holds> = bounds.windows(2).map(holds).collect();
    of.edges(&segments).into_iter().map(|Edge { from, to, kind }| (from, to, kind)).collect()
}

#[test]
fn a_decoder_alone_is_a_chain() {
    assert_eq!(edges("llama", &[]), []);
    assert_eq!(edges("llama", &[1, 3]), [(0, 1, EdgeKind::Sequential), (1, 2, EdgeKind::Sequential)]);
}

#[test]
fn the_output_of_an_encoder_goes_straight_to_every_segment_of_the_decoder() {
    use EdgeKind::{Sequential, Skip};
    assert_eq!(edges("t5", &[]), []);
    assert_eq!(edges("t5", &[4]), [(0, 1, Skip)]);
    assert_eq!(edges("t5", &[2]), [(0, 1, Sequential)]);
    // The second segment holds the end of the encoder and the begin of the decoder; the third needs the output as well.
    assert_eq!(edges("t5", &[2, 6]), [(0, 1, Sequential), (1, 2, Sequential), (1, 2, Skip)]);
    assert_eq!(
        edges("t5", &[2, 4, 5, 7]),
        [(0, 1, Sequential), (2, 3, Sequential), (3, 4, Sequential), (1, 2, Skip), (1, 3, Skip), (1, 4, Skip)]
    );
}
