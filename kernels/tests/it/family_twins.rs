//! Twin tests of what some families of models ask for: caps, sinks, scaled sums, short convolutions.

use polyphony_kernels::{AddRows, Attention, ConvWrite, KvLayout, KvType, Recording, Row, ScaleRows, ShortConv};

use super::twins::{filled, twins};

#[test]
fn attention_with_caps_and_sinks_is_the_oracles() {
    // Over one block of positions and over several; a sink above all scores, one below them, and some among them.
    for (head_size, cap, has_sinks, window) in [
        (16, Some(2.0), false, None),
        (10, None, true, Some(6)),
        (16, Some(4.0), true, None),
        (12, None, true, Some(90)),
    ] {
        let (n_heads, n_kv_heads, n_rows) = (4, 2, 3);
        let layout = KvLayout { n_slots: 2, n_positions: 200, kv_width: n_kv_heads * head_size, kv_type: KvType::F32 };
        // As without them: a capped score is off by some 1e-7 of the cap.
        twins(5e-6, |engine, random| {
            let q = filled(engine, random, n_rows * n_heads * head_size);
            let (k_cache, v_cache) = (filled(engine, random, layout.len()), filled(engine, random, layout.len()));
            let out = engine.alloc(n_rows * n_heads * head_size).unwrap();
            let sinks = engine.load_vector(&[-40.0, 0.5, 3.0, 60.0]).unwrap();
            let rows = (0..n_rows).map(|r| Row { slot: (r % 2) as u32, position: (190 - 90 * r) as u32 }).collect();
            let mut recording = Recording::new(rows);
            recording.push(Attention {
                q,
                k_cache,
                v_cache,
                layout,
                n_heads,
                n_kv_heads,
                head_size,
                scale: 1.7,
                cap,
                window,
                lengths: None,
                bias: None,
                sinks: has_sinks.then_some(sinks),
                out,
            });
            recording.readback(out, 0..n_rows * n_heads * head_size);
            recording
        });
    }
}

#[test]
fn rows_are_added_and_scaled_as_the_oracles() {
    for (width, n_rows, cap) in [(24, 9, None), (1000, 1, Some(8.0)), (70, 3, Some(0.5))] {
        // A product and a sum of size 1; a capped value is off by some 2e-7 of the cap.
        twins(2e-6, |engine, random| {
            let (x, out) = (filled(engine, random, n_rows * width), filled(engine, random, n_rows * width));
            let mut recording = Recording::new(vec![]);
            recording.push(AddRows { x, scale: 0.4, width, n_rows, out });
            recording.push(ScaleRows { x: out, scale: 3.25, cap, width, n_rows });
            recording.readback(out, 0..n_rows * width);
            recording
        });
    }
}

#[test]
fn short_convolutions_are_the_oracles_from_the_first_position_on() {
    for (width, n_taps) in [(24, 3), (70, 4), (9, 1)] {
        let layout = KvLayout { n_slots: 2, n_positions: 20, kv_width: width, kv_type: KvType::F32 };
        // Sums of four products of size 1, each of a product.
        twins(2e-6, |engine, random| {
            let rows: Vec<Row> =
                [(0, 0), (0, 1), (1, 7), (0, 2), (1, 8)].map(|(slot, position)| Row { slot, position }).into();
            let x = filled(engine, random, rows.len() * 3 * width);
            let (cache, out) = (filled(engine, random, layout.len()), engine.alloc(rows.len() * width).unwrap());
            let taps = engine.load_vector(&random.values(width * n_taps)).unwrap();
            let n_values = rows.len() * width;
            let mut recording = Recording::new(rows);
            recording.push(ConvWrite { x, cache, layout });
            recording.push(ShortConv { x, taps, n_taps, cache, layout, out });
            recording.readback(cache, 0..layout.len());
            recording.readback(out, 0..n_values);
            recording
        });
    }
}
