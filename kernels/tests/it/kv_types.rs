//! Types of KV caches: every engine keeps the bits of the scalar reference, reads what they stand for, and attends in its class's order.

use polyphony_kernels::cpu::attention::Caches;
use polyphony_kernels::cpu::attention::in_order::in_order;
use polyphony_kernels::cpu::order::Order;
use polyphony_kernels::cpu::{CpuEngine, kv_row};
use polyphony_kernels::{Attention, BufferId, Engine, KvLayout, KvType, KvWrite, PositionBias, Recording, Row};

use super::engines::{cpu, engines, vulkan};
use super::random::Random;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Rows of values of every kind: near to each other, ties of f16 and its subnormals, beyond what it holds, far apart, tiny, no numbers.
fn rows_of_every_kind(width: usize) -> Vec<Vec<f32>> {
    let row = |value: &mut dyn FnMut(usize) -> f32| (0..width).map(value).collect::<Vec<f32>>();
    let mut random = Random(5);
    let sign = |i: usize| if i.is_multiple_of(3) { -1.0 } else { 1.0 };
    let mut rows = vec![
        row(&mut |_| random.value()),
        row(&mut |i| sign(i) * (2049 + 2 * i) as f32),
        row(&mut |i| sign(i) * (2 * i + 1) as f32 * 2f32.powi(-25)),
        row(&mut |i| sign(i) * 2f32.powi(i as i32 % 60 - 40)),
        row(&mut |i| sign(i) * 65_000.0 * (1.0 + i as f32 / 1000.0)),
        row(&mut |i| sign(i) * f32::from_bits(i as u32 * 9973)),
        row(&mut |i| sign(i) * 2f32.powi(-118 - i as i32 % 4)),
        row(&mut |i| sign(i) * f32::MAX / (i + 1) as f32),
        row(&mut |_| -0.0),
    ];
    for (at, value) in [(0, f32::NAN), (width - 1, f32::INFINITY), (width / 2, f32::NEG_INFINITY)] {
        let mut row = rows[0].clone();
        row[at] = value;
        rows.push(row);
    }
    rows
}

#[test]
fn what_is_kept_has_the_bits_of_the_reference_on_every_engine() {
    for width in [64, 48, 70, 32, 21, 7, 130] {
        let values = rows_of_every_kind(width);
        for kv_type in KvType::ALL {
            let layout = KvLayout { n_slots: 2, n_positions: values.len(), kv_width: width, kv_type };
            let mut expected = vec![0; layout.row_words()];
            let expected: Vec<u32> = values
                .iter()
                .flat_map(|row| {
                    kv_row::reference(kv_type, row, &mut expected);
                    expected.clone()
                })
                .collect();
            for mut engine in engines().into_iter().chain([Box::new(CpuEngine::reference()) as Box<dyn Engine>]) {
                let engine = engine.as_mut();
                let rows = (0..values.len()).map(|r| Row { slot: 1, position: r as u32 }).collect();
                let [k, v] = [(); 2].map(|()| engine.alloc(values.len() * width).unwrap());
                let [k_cache, v_cache] = [(); 2].map(|()| engine.alloc(layout.len()).unwrap());
                let mut recording = Recording::new(rows);
                recording.upload(k, 0, values.concat());
                recording.upload(v, 0, values.iter().rev().flatten().copied().collect());
                recording.push(KvWrite { k, v, k_cache, v_cache, layout });
                engine.run(&recording).unwrap();
                let slot = layout.range(1, 0..values.len() as u32);
                let of = |words: &[f32]| if kv_type == KvType::F32 { numbers(words) } else { bits(words) };
                let keys = of(&engine.read(k_cache, slot.clone()).unwrap());
                let wanted: Vec<f32> = expected.iter().map(|word| f32::from_bits(*word)).collect();
                assert!(keys == of(&wanted), "{}: {kv_type:?}, {width} values", engine.device());
                let rows = engine.read(v_cache, slot).unwrap();
                let rows: Vec<f32> = rows.chunks(layout.row_words()).rev().flatten().copied().collect();
                assert!(of(&rows) == of(&wanted), "{}: {kv_type:?}, values of {width}", engine.device());
                let before = engine.read(k_cache, 0..layout.range(1, 0..0).start).unwrap();
                assert!(bits(&before).iter().all(|word| *word == 0), "the other slot's words stay");
            }
        }
    }
}

/// The bits, but one for all that is no number: an f32 is moved, and a device may say "none" in another way.
fn numbers(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }).collect()
}

/// What a row keeps is what rounding it for the wire gives, so that a value is quantised in one way wherever it goes.
#[test]
fn eight_bits_are_those_of_hidden_states() {
    use polyphony_kernels::ActivationRounding;
    use polyphony_kernels::cpu::round_rows;
    for row in rows_of_every_kind(70) {
        let mut words = vec![0; KvType::Q8.row_words(70)];
        kv_row::reference(KvType::Q8, &row, &mut words);
        let read: Vec<f32> = (0..70).map(|i| kv_row::value(KvType::Q8, 70, &words, i)).collect();
        let mut rounded = row;
        round_rows::reference(&mut rounded, ActivationRounding::Q8);
        // A value of no steps under a negative scale there is none.
        let plain = |values: &[f32]| numbers(&values.iter().map(|value| value + 0.0).collect::<Vec<f32>>());
        assert_eq!(plain(&read), plain(&rounded));
    }
}

/// Attention over random caches.
struct Case {
    op: Attention,
    rows: Vec<Row>,
    q: Vec<f32>,
    /// Values, before they are kept.
    k: Vec<f32>,
    v: Vec<f32>,
    sinks: Vec<f32>,
    slopes: Vec<f32>,
}

/// Positions of a cache: parts of 256, the last not whole.
const N_POSITIONS: usize = 600;

fn cases() -> Vec<Case> {
    let shapes = [
        (4, 2, 16, None, false, None, false),
        (6, 3, 24, Some(70), true, Some(4.0), false),
        (3, 1, 64, None, true, None, true),
        (4, 2, 10, Some(6), false, Some(2.0), true),
        (3, 3, 7, None, true, None, false),
        (2, 1, 256, None, false, None, false),
        (2, 2, 40, Some(130), false, None, true),
        // So many workgroups that none shares its positions.
        (8, 8, 16, None, true, None, false),
    ];
    let case = |(n_heads, n_kv_heads, head_size, window, has_sinks, cap, has_slopes)| {
        let layout =
            KvLayout { n_slots: 2, n_positions: N_POSITIONS, kv_width: n_kv_heads * head_size, kv_type: KvType::F32 };
        // Some of one slot follow each other, some of them near and some far away; the first alone sees the last position.
        let last = N_POSITIONS as u32 - 1;
        let position = |r: u32| if r < 11 { last - r } else { (last + 136 * r) % (last - 20) };
        let rows: Vec<Row> = (0..21).map(|r| Row { slot: r / 5 % 2, position: position(r) }).collect();
        let mut random = Random(41);
        let mut values = |len: usize| random.values(len);
        let (q, k, v) = (values(rows.len() * n_heads * head_size), values(layout.len()), values(layout.len()));
        let sinks = if has_sinks { values(n_heads) } else { vec![] };
        let slopes = if has_slopes { (0..n_heads).map(|head| 0.5f32.powi(head as i32 + 1)).collect() } else { vec![] };
        let none = CpuEngine::reference().alloc(1).unwrap();
        let op = Attention {
            q: none,
            k_cache: none,
            v_cache: none,
            layout,
            n_heads,
            n_kv_heads,
            head_size,
            scale: 0.7,
            cap,
            window,
            lengths: None,
            bias: None,
            sinks: None,
            out: none,
        };
        Case { op, rows, q, k, v, sinks, slopes }
    };
    shapes.map(case).into()
}

impl Case {
    /// The words of a cache of this type that was given `values`.
    fn kept(&self, kv_type: KvType, values: &[f32]) -> Vec<u32> {
        let width = self.op.layout.kv_width;
        let mut row = vec![0; kv_type.row_words(width)];
        let kept = values.chunks(width).flat_map(|values| {
            kv_row::reference(kv_type, values, &mut row);
            row.clone()
        });
        kept.collect()
    }

    /// What a cache of this type gives back.
    fn read(&self, kv_type: KvType, values: &[f32]) -> Vec<f32> {
        let width = self.op.layout.kv_width;
        let kept = self.kept(kv_type, values);
        let rows = kept.chunks(kv_type.row_words(width));
        rows.flat_map(|row| (0..width).map(move |i| kv_row::value(kv_type, width, row, i))).collect()
    }

    /// What the engine makes of these words.
    fn run(&self, engine: &mut dyn Engine, kv_type: KvType, k: &[u32], v: &[u32]) -> Vec<u32> {
        let layout = KvLayout { kv_type, ..self.op.layout };
        let mut buffer = |values: Vec<f32>| -> BufferId {
            let buffer = engine.alloc(values.len()).unwrap();
            engine.write(buffer, 0, &values).unwrap();
            buffer
        };
        let of_words = |words: &[u32]| words.iter().map(|word| f32::from_bits(*word)).collect();
        let (q, k_cache, v_cache) = (buffer(self.q.clone()), buffer(of_words(k)), buffer(of_words(v)));
        let out = buffer(vec![0.0; self.q.len()]);
        let mut vector = |values: &[f32]| (!values.is_empty()).then(|| engine.load_vector(values).unwrap());
        let (sinks, bias) = (vector(&self.sinks), vector(&self.slopes).map(PositionBias::Slopes));
        let mut recording = Recording::new(self.rows.clone());
        recording.push(Attention { q, k_cache, v_cache, layout, sinks, bias, out, ..self.op.clone() });
        recording.readback(out, 0..self.q.len());
        bits(&engine.run(&recording).unwrap())
    }
}

#[test]
fn attention_reads_exactly_what_a_cache_has_kept() {
    for case in cases() {
        for kv_type in [KvType::F16, KvType::Q8] {
            let [k, v] = [&case.k, &case.v].map(|values| case.kept(kv_type, values));
            let [k_read, v_read] = [&case.k, &case.v].map(|values| bits(&case.read(kv_type, values)));
            for mut engine in engines() {
                let found = case.run(engine.as_mut(), kv_type, &k, &v);
                let expected = case.run(engine.as_mut(), KvType::F32, &k_read, &v_read);
                assert!(found == expected, "{}: {kv_type:?}, heads of {}", engine.device(), case.op.head_size);
            }
        }
    }
}

/// Subnormals of f16 are read as they are, too.
#[test]
fn the_smallest_values_of_f16_are_not_lost() {
    let mut case = cases().remove(0);
    for (i, value) in case.v.iter_mut().enumerate() {
        *value = (i % 1000) as f32 * 2f32.powi(-24);
    }
    let [k, v] = [&case.k, &case.v].map(|values| case.kept(KvType::F16, values));
    let [k_read, v_read] = [&case.k, &case.v].map(|values| bits(&case.read(KvType::F16, values)));
    for mut engine in engines() {
        let found = case.run(engine.as_mut(), KvType::F16, &k, &v);
        assert!(found.iter().any(|bits| *bits != 0));
        assert!(found == case.run(engine.as_mut(), KvType::F32, &k_read, &v_read), "{}", engine.device());
    }
}

impl Case {
    /// What the class of this order makes of what a cache of this type has kept.
    fn in_order(&self, order: Order, kv_type: KvType) -> Vec<f32> {
        let [k, v] = [&self.k, &self.v].map(|values| self.kept(kv_type, values));
        // The ids of any engine serve as marks of what there is.
        let mut other = CpuEngine::reference();
        let mut mark = |values: &[f32]| (!values.is_empty()).then(|| other.load_vector(values).unwrap());
        let (sinks, bias) = (mark(&self.sinks), mark(&self.slopes).map(PositionBias::Slopes));
        let op = Attention { layout: KvLayout { kv_type, ..self.op.layout }, sinks, bias, ..self.op.clone() };
        let mut out = vec![0.0; self.q.len()];
        in_order(
            order,
            &op,
            &self.rows,
            &self.q,
            Caches { k: &k, v: &v, bias: &self.slopes, sinks: &self.sinks },
            &mut out,
        );
        out
    }

    fn kept_and_run(&self, engine: &mut dyn Engine, kv_type: KvType) -> Vec<u32> {
        let [k, v] = [&self.k, &self.v].map(|values| self.kept(kv_type, values));
        self.run(engine, kv_type, &k, &v)
    }
}

#[test]
fn attention_adds_in_the_order_of_its_class_on_the_processor() {
    for mut engine in [cpu(1), cpu(3)] {
        for case in cases() {
            for kv_type in KvType::ALL {
                let expected = bits(&case.in_order(Order::Processor, kv_type));
                let found = case.kept_and_run(engine.as_mut(), kv_type);
                assert!(found == expected, "{}: {kv_type:?}, heads of {}", engine.device(), case.op.head_size);
            }
        }
    }
}

/// Mesa's driver of software computes as written. Another may fuse and divide as it pleases, and its class has its name: the last bits of
/// weights are its own, and no more.
#[test]
fn attention_adds_in_the_order_of_its_class_on_vulkan() {
    const BITS: f32 = 1e-5;
    for mut engine in vulkan() {
        for case in cases() {
            for kv_type in KvType::ALL {
                let expected = case.in_order(Order::Vulkan, kv_type);
                let found = case.kept_and_run(engine.as_mut(), kv_type);
                if engine.numerics().contains("llvmpipe") {
                    assert!(
                        found == bits(&expected),
                        "{}: {kv_type:?}, heads of {}",
                        engine.device(),
                        case.op.head_size
                    );
                }
                let off =
                    found.iter().zip(&expected).map(|(found, expected)| (f32::from_bits(*found) - expected).abs());
                // Values are below 1.
                let off = off.fold(0.0, f32::max);
                assert!(off < BITS, "{}: {kv_type:?}, heads of {}: {off}", engine.device(), case.op.head_size);
            }
        }
    }
}

/// Where a head sees a key that is beyond f16, its result is no number, so that the session ends; all others are as they were.
#[test]
fn a_key_that_is_kept_as_infinite_makes_no_answer() {
    for mut case in cases() {
        let (width, heads) = (case.op.layout.kv_width, case.op.n_heads / case.op.n_kv_heads);
        let plain: Vec<Vec<u32>> =
            engines().iter_mut().map(|engine| case.kept_and_run(engine.as_mut(), KvType::F16)).collect();
        // The last position of the first slot, which the first row alone sees; its query is against it there, if only just.
        case.k[(N_POSITIONS - 1) * width] = 70_000.0;
        for head in 0..heads {
            case.q[head * case.op.head_size] = -1e-6;
        }
        for (mut engine, plain) in engines().into_iter().zip(plain) {
            let found = case.kept_and_run(engine.as_mut(), KvType::F16);
            let (spoilt, others) = found.split_at(heads * case.op.head_size);
            let device = engine.device();
            assert!(
                spoilt.iter().all(|bits| !f32::from_bits(*bits).is_finite()),
                "{device}, heads of {}",
                case.op.head_size
            );
            assert!(*others == plain[spoilt.len()..], "{device}, heads of {}", case.op.head_size);
        }
    }
}

/// With other rows beside it a workgroup takes several, and there may be so many that none shares its positions with another.
#[test]
fn a_row_alone_has_the_bits_that_it_has_beside_others() {
    for mut engine in vulkan() {
        for case in cases() {
            let together = case.kept_and_run(engine.as_mut(), KvType::F16);
            let width = case.op.n_heads * case.op.head_size;
            for (at, together) in together.chunks_exact(width).enumerate() {
                let q = case.q[at * width..][..width].to_vec();
                let (k, v) = (case.k.clone(), case.v.clone());
                let (sinks, slopes) = (case.sinks.clone(), case.slopes.clone());
                let alone = Case { op: case.op.clone(), rows: vec![case.rows[at]], q, k, v, sinks, slopes };
                let found = alone.kept_and_run(engine.as_mut(), KvType::F16);
                assert!(found == together, "{}: row {at}, heads of {}", engine.device(), case.op.head_size);
            }
        }
    }
}
