//! Mixtures of experts: choosing, the products of those chosen alone, mixing. Against the oracle, and against products of one expert's matrix.

use polyphony_kernels::cpu::CpuEngine;
use polyphony_kernels::cpu::order::Order;
use polyphony_kernels::vulkan::{Options, WeightSource};
use polyphony_kernels::{
    Activate, Activation, Arithmetic, Engine, EngineError, ExpertMatmul, GateUp, Matmul, MixRows, Op, Recording, Route,
    SoftmaxOver, WeightType,
};

use super::engines::{cpu_int8, engines, vulkan_as, vulkan_with};
use super::random::Random;
use super::twins::{filled, twins};

#[test]
fn shares_are_the_oracles_and_choices_are_those_of_any_engine() {
    for (n_experts, n_chosen, n_rows) in [(8, 2, 5), (128, 8, 1), (5, 5, 3), (1, 1, 2), (300, 64, 2), (64, 4, 17)] {
        for (softmax, scale) in [(SoftmaxOver::Chosen, 1.0), (SoftmaxOver::All, 2.5)] {
            // Numbers of experts come exactly; shares are quotients of a sum of up to 300 powers, which every engine rounds its own way.
            twins(2e-6, |engine, random| {
                // Steps of a quarter: many are equal.
                let values = random.values(n_rows * n_experts).into_iter().map(|value| (value * 20.0).round() / 4.0);
                let logits = engine.alloc(n_rows * n_experts).unwrap();
                engine.write(logits, 0, &values.collect::<Vec<_>>()).unwrap();
                let [chosen, shares] = [0; 2].map(|_| engine.alloc(n_rows * n_chosen).unwrap());
                let mut recording = Recording::new(vec![]);
                recording.push(Route { logits, n_experts, n_chosen, softmax, scale, n_rows, chosen, shares });
                recording.readback(chosen, 0..n_rows * n_chosen);
                recording.readback(shares, 0..n_rows * n_chosen);
                recording
            });
        }
    }
}

#[test]
fn of_equal_logits_every_engine_takes_the_lower_number() {
    for mut engine in engines() {
        let logits = engine.alloc(12).unwrap();
        engine.write(logits, 0, &[1.0, 3.0, -7.0, 3.0, 3.0, 0.0, -0.0, 0.0, -3.0, -3.0, -0.0, -1e-40]).unwrap();
        let [chosen, shares] = [0; 2].map(|_| engine.alloc(6).unwrap());
        let mut recording = Recording::new(vec![]);
        let softmax = SoftmaxOver::Chosen;
        recording.push(Route { logits, n_experts: 6, n_chosen: 3, softmax, scale: 1.0, n_rows: 2, chosen, shares });
        recording.readback(chosen, 0..6);
        assert_eq!(engine.run(&recording).unwrap(), [1.0, 3.0, 4.0, 0.0, 1.0, 4.0], "{}", engine.device());
    }
}

/// A matrix of experts, and what two rows or more choose of them.
#[derive(Clone, Copy, Debug)]
struct Experts {
    weight_type: WeightType,
    n_experts: usize,
    n_out: usize,
    n_in: usize,
    n_chosen: usize,
    n_rows: usize,
    is_apart: bool,
}

const EXPERTS: Experts = Experts {
    weight_type: WeightType::F32,
    n_experts: 6,
    n_out: 24,
    n_in: 64,
    n_chosen: 2,
    n_rows: 5,
    is_apart: false,
};

/// Widths that fill no strip and no lane, parts that end within an expert, columns of more than one window, choices of more than one.
fn shapes() -> Vec<Experts> {
    use WeightType::*;
    let mut shapes = vec![
        Experts { weight_type: Mxfp4, ..EXPERTS },
        Experts { n_out: 11, n_in: 40, is_apart: true, ..EXPERTS },
        Experts { weight_type: Q4K, n_out: 7, n_in: 256, n_chosen: 6, ..EXPERTS },
        Experts { weight_type: Q8_0, n_out: 33, n_rows: 1, ..EXPERTS },
        Experts { weight_type: Q4_0, n_experts: 13, n_out: 1501, n_in: 32, n_rows: 3, is_apart: true, ..EXPERTS },
        Experts { n_experts: 3, n_out: 5, n_in: 5001, n_rows: 2, is_apart: true, ..EXPERTS },
        Experts { weight_type: Q6K, n_experts: 3, n_out: 9, n_in: 11 * 1024, n_rows: 2, ..EXPERTS },
        Experts { weight_type: F16, n_out: 3, n_in: 1800, n_chosen: 5, n_rows: 2, is_apart: true, ..EXPERTS },
        Experts { n_experts: 1, n_chosen: 1, ..EXPERTS },
    ];
    shapes.extend([Bf16, Q2K, Q5_1, Iq4Xs].map(|weight_type| Experts { weight_type, n_in: 512, ..EXPERTS }));
    shapes
}

impl Experts {
    fn matrix(&self, random: &mut Random) -> Vec<u8> {
        random.matrix(self.weight_type, self.n_experts * self.n_out, self.n_in)
    }

    /// Every row other ones; the last and the first expert among them.
    fn chosen(&self) -> Vec<f32> {
        let expert = |i: usize| (self.n_experts - 1 + i / self.n_chosen * 2 + i % self.n_chosen) % self.n_experts;
        (0..self.n_rows * self.n_chosen).map(|i| expert(i) as f32).collect()
    }

    fn n_inputs(&self) -> usize {
        if self.is_apart { self.n_rows * self.n_chosen } else { self.n_rows }
    }

    fn record(&self, engine: &mut dyn Engine, random: &mut Random) -> Recording {
        let Self { weight_type, n_experts, n_out, n_in, n_chosen, n_rows, is_apart } = *self;
        let weight = engine.load_matrix(weight_type, n_experts * n_out, n_in, &self.matrix(random)).unwrap();
        let bias = Some(engine.load_vector(&random.values(n_experts * n_out)).unwrap());
        let x = filled(engine, random, self.n_inputs() * n_in);
        let chosen = engine.alloc(n_rows * n_chosen).unwrap();
        engine.write(chosen, 0, &self.chosen()).unwrap();
        let out = engine.alloc(n_rows * n_chosen * n_out).unwrap();
        let mut recording = Recording::new(vec![]);
        let plain = ExpertMatmul { weight, n_experts, bias, x, is_apart, chosen, n_chosen, n_rows, out };
        recording.push(plain);
        recording.readback(out, 0..n_rows * n_chosen * n_out);
        recording
    }
}

#[test]
fn products_of_the_chosen_experts_are_the_oracles() {
    for shape in shapes() {
        println!("{shape:?}");
        // Sums of up to 11,264 products of size 1 in f32, each off by some 1e-7 of the partial sums, which grow as the root of their number.
        twins(3e-5, |engine, random| shape.record(engine, random));
    }
}

/// What a device that computes wrongly may choose: no kernel looks beyond the matrix for it.
#[test]
fn a_number_that_no_expert_has_is_one_of_those_that_there_are() {
    let shape = Experts { n_rows: 3, ..EXPERTS };
    twins(3e-5, |engine, random| {
        let mut recording = shape.record(engine, random);
        let Op::ExpertMatmul(product) = &recording.ops[0] else { unreachable!("it records one") };
        let largest = shape.n_experts as f32;
        let chosen = vec![-3.0, 1e9, f32::INFINITY, f32::NEG_INFINITY, largest, 1.0];
        recording.upload(product.chosen, 0, chosen);
        recording
    });
}

/// What becomes of its own choice nobody promises.
#[test]
fn a_choice_that_is_no_number_spoils_no_other() {
    let shape = Experts { n_rows: 3, ..EXPERTS };
    for engine in &mut engines() {
        let mut run = |first: f32| {
            let mut recording = shape.record(engine.as_mut(), &mut Random(7));
            let Op::ExpertMatmul(product) = &recording.ops[0] else { unreachable!("it records one") };
            recording.upload(product.chosen, 0, vec![first, 1.0, 2.0, 0.0, 5.0, 3.0]);
            engine.run(&recording).unwrap().split_off(shape.n_out)
        };
        assert_eq!(run(f32::NAN), run(0.0));
    }
}

#[test]
fn an_expert_gives_the_bits_that_its_matrix_alone_does_whoever_else_is_in_the_step() {
    for shape in shapes() {
        let Experts { weight_type, n_experts, n_out, n_in, n_chosen, n_rows, is_apart } = shape;
        let mut all = engines();
        all.extend(vulkan_with(Arithmetic::Int8));
        all.push(cpu_int8(2));
        for engine in &mut all {
            let mut random = Random(7);
            let recording = shape.record(engine.as_mut(), &mut random);
            let found = engine.run(&recording).unwrap();

            let mut random = Random(7);
            let matrix = shape.matrix(&mut random);
            let biases = random.values(n_experts * n_out);
            let rows = random.values(shape.n_inputs() * n_in);
            let (x, out) = (engine.alloc(n_in).unwrap(), engine.alloc(n_out).unwrap());
            for (choice, expert) in shape.chosen().into_iter().enumerate() {
                let (expert, n_bytes) = (expert as usize, matrix.len() / n_experts);
                let of_expert = &matrix[expert * n_bytes..(expert + 1) * n_bytes];
                let weight = engine.load_matrix(weight_type, n_out, n_in, of_expert).unwrap();
                let bias = Some(engine.load_vector(&biases[expert * n_out..(expert + 1) * n_out]).unwrap());
                let row = if is_apart { choice } else { choice / n_chosen };
                let mut recording = Recording::new(vec![]);
                recording.upload(x, 0, rows[row * n_in..(row + 1) * n_in].to_vec());
                recording.push(Matmul { weight, x, first_row: 0, n_rows: 1, bias, residual: None, out });
                recording.readback(out, 0..n_out);
                let alone = engine.run(&recording).unwrap();
                let found = &found[choice * n_out..(choice + 1) * n_out];
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                assert!(bits(found) == bits(&alone), "{}: choice {choice} of {shape:?}", engine.device());
            }
            assert_eq!(found.len(), n_rows * n_chosen * n_out);
        }
    }
}

#[test]
fn products_of_8_bits_are_the_oracles_to_the_bit() {
    let processors: Vec<_> = [1, 3].map(cpu_int8).into();
    let mut gpus = vulkan_with(Arithmetic::Int8);
    // Lanes that share columns, of matrices in several parts.
    let (arithmetic, source, is_software) = (Arithmetic::Int8, Some(WeightSource::Image), Some(false));
    let split = vulkan_as(Options { arithmetic, source, is_software, ..Options::default() });
    gpus.extend(split.map(|engine| Box::new(engine) as Box<dyn Engine>));
    for (order, mut engines) in [(Order::Processor, processors), (Order::Vulkan, gpus)] {
        for shape in shapes().into_iter().filter(|shape| shape.weight_type.packing().quantised().is_some()) {
            let mut oracle = CpuEngine::int8_reference(order).unwrap();
            let recording = shape.record(&mut oracle, &mut Random(7));
            let expected = oracle.run(&recording).unwrap();
            for engine in &mut engines {
                let recording = shape.record(engine.as_mut(), &mut Random(7));
                let found = engine.run(&recording).unwrap();
                let same = found.iter().zip(&expected).all(|(found, expected)| found.to_bits() == expected.to_bits());
                assert!(same, "{}: {shape:?}", engine.device());
            }
        }
    }
}

#[test]
fn what_other_experts_weigh_is_never_looked_at() {
    let shape = Experts { n_out: 11, ..EXPERTS };
    for mut engine in engines() {
        // The rows of the two experts that are chosen, among those that are no numbers.
        let mut matrix = vec![f32::NAN; shape.n_experts * shape.n_out * shape.n_in];
        let of_expert = |expert: usize| expert * shape.n_out * shape.n_in..(expert + 1) * shape.n_out * shape.n_in;
        for expert in [2, 5] {
            matrix[of_expert(expert)].fill(1.0);
        }
        let bytes: Vec<u8> = matrix.into_iter().flat_map(f32::to_le_bytes).collect();
        let (n_rows, n_out) = (shape.n_experts * shape.n_out, shape.n_out);
        let weight = engine.load_matrix(WeightType::F32, n_rows, shape.n_in, &bytes).unwrap();
        let (x, chosen) = (engine.alloc(shape.n_in).unwrap(), engine.alloc(2).unwrap());
        let out = engine.alloc(2 * n_out).unwrap();
        let mut recording = Recording::new(vec![]);
        recording.upload(x, 0, vec![0.5; shape.n_in]);
        recording.upload(chosen, 0, vec![2.0, 5.0]);
        recording.push(ExpertMatmul {
            weight,
            n_experts: shape.n_experts,
            bias: None,
            x,
            is_apart: false,
            chosen,
            n_chosen: 2,
            n_rows: 1,
            out,
        });
        recording.readback(out, 0..2 * n_out);
        assert_eq!(engine.run(&recording).unwrap(), [32.0; 22], "{}", engine.device());
    }
}

#[test]
fn rows_are_mixed_as_the_oracles() {
    for (n_mixed, width, n_rows) in [(2, 40, 5), (8, 1000, 1), (1, 33, 3), (3, 7, 70)] {
        // Sums of up to eight products of size 1, and one addition.
        twins(2e-6, |engine, random| {
            let x = filled(engine, random, n_rows * n_mixed * width);
            let shares = filled(engine, random, n_rows * n_mixed);
            let residual = filled(engine, random, n_rows * width);
            let (into, out) = (filled(engine, random, n_rows * width), engine.alloc(n_rows * width).unwrap());
            let mix = MixRows { x, shares, n_mixed, width, n_rows, residual: None, out };
            let mut recording = Recording::new(vec![]);
            recording.push(mix.clone());
            recording.push(MixRows { residual: Some(into), out: into, ..mix.clone() });
            recording.push(MixRows { residual: Some(out), out: residual, ..mix });
            for buffer in [out, into, residual] {
                recording.readback(buffer, 0..n_rows * width);
            }
            recording
        });
    }
}

#[test]
fn a_clamped_gate_is_the_oracles_beside_its_way_up_and_joined_to_it() {
    let (function, width, n_in, n_rows) = (Activation::SiluClamped, 20, 32, 3);
    // Gates of up to some 10 and factors of up to 8, on sums of 32 products.
    twins(1e-5, |engine, random| {
        let values = |random: &mut Random| random.values(n_rows * width).into_iter().map(|value| value * 12.0);
        let (gate, up) = (engine.alloc(n_rows * width).unwrap(), engine.alloc(n_rows * width).unwrap());
        let [out, joined] = [0; 2].map(|_| engine.alloc(n_rows * width).unwrap());
        let weight =
            engine.load_matrix(WeightType::F32, 2 * width, n_in, &random.matrix(WeightType::F32, 2 * width, n_in));
        let x = engine.alloc(n_rows * n_in).unwrap();
        let mut recording = Recording::new(vec![]);
        recording.upload(gate, 0, values(random).collect());
        recording.upload(up, 0, values(random).collect());
        recording.upload(x, 0, random.values(n_rows * n_in).into_iter().map(|value| value * 4.0).collect());
        recording.push(Activate { function, x: gate, factor: Some(up), width, n_rows, out });
        recording.push(GateUp { function, weight: weight.unwrap(), x, n_rows, out: joined });
        recording.readback(out, 0..n_rows * width);
        recording.readback(joined, 0..n_rows * width);
        recording
    });
    for mut engine in engines() {
        let [gate, up, out] = [0; 3].map(|_| engine.alloc(3).unwrap());
        let mut recording = Recording::new(vec![]);
        recording.upload(gate, 0, vec![1e4, 7.0, f32::NAN]);
        recording.upload(up, 0, vec![1e4, 9.0, 1.0]);
        recording.push(Activate { function, x: gate, factor: Some(up), width: 3, n_rows: 1, out });
        recording.readback(out, 0..3);
        let found = engine.run(&recording).unwrap();
        // 7 sigmoid(11.914) (7 + 1).
        assert!((found[0] - 55.999_626).abs() < 1e-3 && found[0] == found[1], "{}: {found:?}", engine.device());
    }
}

#[test]
fn experts_that_do_not_fit_are_refused() {
    let refused = |op: &dyn Fn(&mut dyn Engine) -> Recording| {
        let mut texts: Vec<String> = engines()
            .iter_mut()
            .map(|engine| {
                let recording = op(engine.as_mut());
                let error = engine.run(&recording).unwrap_err();
                assert!(matches!(error, EngineError::Op { index: 0, .. }), "{error:?}");
                error.to_string()
            })
            .collect();
        texts.dedup();
        assert_eq!(texts.len(), 1, "{texts:?}");
        texts.remove(0)
    };
    let route = |n_experts: usize, n_chosen: usize| {
        refused(&move |engine| {
            let [logits, chosen, shares] = [0; 3].map(|_| engine.alloc(512).unwrap());
            let mut recording = Recording::new(vec![]);
            let softmax = SoftmaxOver::All;
            recording.push(Route { logits, n_experts, n_chosen, softmax, scale: 1.0, n_rows: 1, chosen, shares });
            recording
        })
    };
    assert_eq!(route(8, 9), "op 0 (Route): n_chosen: expected 1 to 8, found 9");
    assert_eq!(route(8, 0), "op 0 (Route): n_chosen: expected 1 to 8, found 0");
    assert_eq!(route(300, 65), "op 0 (Route): n_chosen: expected 1 to 64, found 65");
    let products = |n_experts: usize| {
        refused(&move |engine| {
            let weight = engine.load_matrix(WeightType::F32, 10, 32, &[0; 10 * 32 * 4]).unwrap();
            let [x, chosen, out] = [0; 3].map(|_| engine.alloc(64).unwrap());
            let mut recording = Recording::new(vec![]);
            let (bias, is_apart, n_chosen, n_rows) = (None, true, 2, 2);
            recording.push(ExpertMatmul { weight, n_experts, bias, x, is_apart, chosen, n_chosen, n_rows, out });
            recording
        })
    };
    assert_eq!(products(0), "op 0 (ExpertMatmul): n_experts: expected at least 1, found 0");
    let text = "op 0 (ExpertMatmul): weight: expected as many rows for each of 4 experts, found 10";
    assert_eq!(products(4), text);
    assert_eq!(products(5), "op 0 (ExpertMatmul): x: expected at least 4 × 32 values, neither 0, found 64");
}
