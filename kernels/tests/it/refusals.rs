//! Wrong recordings: refused with op, expected and found, before anything has run.

use polyphony_kernels::ops::rope::frequencies;
use polyphony_kernels::{
    Activate, Activation, Attention, BufferId, EmbedRows, Engine, EngineError, KvLayout, KvType, KvWrite, Matmul, Op,
    Recording, RmsNorm, Rope, RopeStyle, Row, ScaleRows, Turn, WeightType,
};

use super::engines::new_engines;

const LAYOUT: KvLayout = KvLayout { n_slots: 2, n_positions: 4, kv_width: 32, kv_type: KvType::F32 };

/// Runs one op over one row on every engine and returns the error's text, which is the same on all.
fn refusal(row: Row, op: impl Fn(&mut dyn Engine, BufferId, BufferId) -> Op) -> String {
    let mut texts = Vec::new();
    for mut engine in new_engines() {
        let (x, out) = (engine.alloc(64).unwrap(), engine.alloc(64).unwrap());
        let op = op(engine.as_mut(), x, out);
        let mut recording = Recording::new(vec![row]);
        recording.upload(out, 0, vec![7.0]);
        recording.push(op);
        let error = engine.run(&recording).unwrap_err();
        assert!(matches!(error, EngineError::Op { index: 0, .. }), "{error:?}");
        assert_eq!(engine.read(out, 0..1).unwrap(), [0.0], "a refused recording changes nothing");
        texts.push(error.to_string());
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    texts.remove(0)
}

fn f32_matrix(engine: &mut dyn Engine, n_rows: usize, n_cols: usize) -> polyphony_kernels::MatrixId {
    engine.load_matrix(WeightType::F32, n_rows, n_cols, &vec![0; n_rows * n_cols * 4]).unwrap()
}

const ROW: Row = Row { slot: 0, position: 0 };

#[test]
fn a_token_beyond_the_table_is_refused() {
    let text = refusal(ROW, |engine, _, out| {
        EmbedRows { table: f32_matrix(engine, 10, 32), tokens: vec![9, 10], scale: 1.0, adds: false, out }.into()
    });
    assert_eq!(text, "op 0 (EmbedRows): tokens: expected less than 10 each, found 10");
}

#[test]
fn a_position_or_slot_beyond_the_cache_is_refused() {
    let op = |engine: &mut dyn Engine, x, _| {
        let (k_cache, v_cache) = (engine.alloc(LAYOUT.len()).unwrap(), engine.alloc(LAYOUT.len()).unwrap());
        KvWrite { k: x, v: x, k_cache, v_cache, layout: LAYOUT }.into()
    };
    let text = refusal(Row { slot: 0, position: 4 }, op);
    assert_eq!(text, "op 0 (KvWrite): position: expected less than 4, found 4");
    let text = refusal(Row { slot: 2, position: 0 }, op);
    assert_eq!(text, "op 0 (KvWrite): slot: expected less than 2, found 2");
}

#[test]
fn a_buffer_too_small_is_refused() {
    let text = refusal(ROW, |engine, x, out| {
        let weight = engine.load_vector(&[1.0; 32]).unwrap();
        RmsNorm { x, first_row: 1, weight, eps: 0.0, width: 32, n_rows: 2, out }.into()
    });
    assert_eq!(text, "op 0 (RmsNorm): x: expected at least 3 × 32 values, neither 0, found 64");
    let function = Activation::Silu;
    let text =
        refusal(ROW, |_, x, out| Activate { function, x, factor: None, width: usize::MAX, n_rows: 3, out }.into());
    assert!(text.starts_with("op 0 (Activate): x: expected at least 3 × "), "{text}");
}

#[test]
fn a_bias_of_another_width_is_refused() {
    let text = refusal(ROW, |engine, x, out| {
        let bias = Some(engine.load_vector(&[0.0; 9]).unwrap());
        Matmul { weight: f32_matrix(engine, 10, 32), x, first_row: 0, n_rows: 1, bias, residual: None, out }.into()
    });
    assert_eq!(text, "op 0 (Matmul): bias: expected 10 values, found 9");
}

#[test]
fn an_output_that_is_an_input_is_refused() {
    let function = Activation::Silu;
    let text = refusal(ROW, |_, x, out| Activate { function, x, factor: Some(out), width: 4, n_rows: 1, out }.into());
    assert!(text.starts_with("op 0 (Activate): out: expected a buffer that is no input of the op"), "{text}");
}

#[test]
fn heads_that_do_not_fit_are_refused() {
    let attention = |n_heads, n_kv_heads, head_size| {
        refusal(ROW, move |engine, x, out| {
            let (k_cache, v_cache) = (engine.alloc(LAYOUT.len()).unwrap(), engine.alloc(LAYOUT.len()).unwrap());
            let (layout, scale, window) = (LAYOUT, 1.0, None);
            Attention {
                q: x,
                k_cache,
                v_cache,
                layout,
                n_heads,
                n_kv_heads,
                head_size,
                scale,
                cap: None,
                window,
                lengths: None,
                bias: None,
                sinks: None,
                out,
            }
            .into()
        })
    };
    assert_eq!(attention(3, 2, 16), "op 0 (Attention): n_heads: expected a multiple of 2 key heads, found 3");
    assert_eq!(attention(1, 1, 257), "op 0 (Attention): head_size: expected 1 to 256, found 257");
    assert_eq!(attention(2, 2, 8), "op 0 (Attention): layout.kv_width: expected 16, found 32");
    let text = refusal(ROW, |_, x, _| {
        let turn = Turn { style: RopeStyle::Pairs, frequencies: frequencies(1e4, 18).into(), magnitude: 1.0 };
        Rope { x, n_heads: 1, head_size: 16, turn }.into()
    });
    assert_eq!(text, "op 0 (Rope): frequencies: expected 1 to 8 pairs, in heads of 16, found 9");
    let text = refusal(ROW, |_, x, _| {
        let turn = Turn { style: RopeStyle::Pairs, frequencies: [1.0, f64::INFINITY].into(), magnitude: 1.0 };
        Rope { x, n_heads: 1, head_size: 16, turn }.into()
    });
    assert_eq!(text, "op 0 (Rope): frequencies: expected finite, all of them, found inf");
    let text = refusal(ROW, |_, x, _| ScaleRows { x, scale: 1.0, cap: Some(0.0), width: 4, n_rows: 1 }.into());
    assert_eq!(text, "op 0 (ScaleRows): cap: expected finite and over 0, found 0");
}

#[test]
fn two_rows_at_one_place_are_refused() {
    for mut engine in new_engines() {
        let error = engine.run(&Recording::new(vec![ROW, ROW])).unwrap_err();
        assert!(error.to_string().starts_with("recording: rows: expected each slot and position once"), "{error}");
    }
}

#[test]
fn ids_of_nothing_and_ranges_beyond_a_buffer_are_refused() {
    for mut engine in new_engines() {
        let mut other = polyphony_kernels::cpu::CpuEngine::reference();
        let ids: Vec<BufferId> = (0..9).map(|_| other.alloc(1).unwrap()).collect();
        let stranger = ids[8];
        assert!(engine.read(stranger, 0..1).is_err());
        let buffer = engine.alloc(4).unwrap();
        assert!(engine.read(buffer, 3..5).is_err());
        assert!(engine.write(buffer, usize::MAX, &[0.0]).is_err());
        let mut recording = Recording::new(vec![]);
        recording.readback(buffer, 0..5);
        assert!(engine.run(&recording).is_err());
    }
}

#[test]
fn a_matrix_of_the_wrong_size_is_refused() {
    for mut engine in new_engines() {
        let idle = engine.bytes_used();
        let error = engine.load_matrix(WeightType::Q4_1, 2, 64, &[0; 79]).unwrap_err().to_string();
        assert!(error.starts_with("load_matrix: bytes: expected 80 for "), "{error}");
        let error = engine.load_matrix(WeightType::Q8_0, 2, 48, &[0; 102]).unwrap_err().to_string();
        assert_eq!(error, "load_matrix: n_cols: expected a multiple of 32, found 48");
        let error = engine.load_matrix(WeightType::Q6K, 2, 96, &[0; 210]).unwrap_err().to_string();
        assert_eq!(error, "load_matrix: n_cols: expected a multiple of 256, found 96");
        assert_eq!(engine.bytes_used(), idle);
        engine.load_matrix(WeightType::Q4_1, 2, 64, &[0; 80]).unwrap();
        assert!(engine.bytes_used() >= idle + 80);
    }
}

#[test]
fn an_empty_step_gives_nothing() {
    for mut engine in new_engines() {
        assert_eq!(engine.run(&Recording::default()).unwrap(), Vec::<f32>::new());
    }
}
