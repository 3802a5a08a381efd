//! What the engine calls for each op: the oracle, or the kernel of its arithmetic.

use std::sync::Arc;

use super::attention::in_order::in_order;
use super::{Arithmetic, CpuEngine, Matrix, Products};
use super::{
    activate, add_rows, attention, conv_write, embed_rows, gate_up, kv_write, layer_norm, matmul, rms_norm, rope,
    rope_kv_write, round_rows, scale_rows, short_conv,
};
use crate::ops::{
    Activate, AddRows, Attention, ConvWrite, EmbedRows, GateUp, KvWrite, LayerNorm, Matmul, PositionBias, RmsNorm,
    Rope, RopeKvWrite, RoundRows, ScaleRows, ShortConv, Turn,
};
use crate::recording::{Op, Row};

impl CpuEngine {
    pub(super) fn run_op(&mut self, op: &Op, rows: &[Row]) -> Result<(), crate::ShapeError> {
        match op {
            Op::EmbedRows(op) => return self.embed_rows(op),
            Op::RmsNorm(op) => self.rms_norm(op),
            Op::LayerNorm(op) => self.layer_norm(op),
            Op::Matmul(op) => return self.matmul(op),
            Op::ExpertMatmul(op) => return self.expert_matmul(op),
            Op::GateUp(op) => return self.gate_up(op),
            Op::Rope(op) => self.rope(op, rows),
            Op::RopeKvWrite(op) => self.rope_kv_write(op, rows),
            Op::KvWrite(op) => self.kv_write(op, rows),
            Op::Attention(op) => self.attention(op, rows),
            Op::Activate(op) => self.activate(op),
            Op::AddRows(op) => self.add_rows(op),
            Op::ScaleRows(op) => self.scale_rows(op),
            Op::ConvWrite(op) => self.conv_write(op, rows),
            Op::ShortConv(op) => self.short_conv(op, rows),
            Op::RoundRows(op) => self.round_rows(op),
            Op::Route(op) => self.route(op),
            Op::MixRows(op) => self.mix_rows(op),
        }
        Ok(())
    }

    fn embed_rows(&mut self, op: &EmbedRows) -> Result<(), crate::ShapeError> {
        self.update(op.out, |engine, out| {
            embed_rows::reference(engine.matrix(op.table)?, &op.tokens, op.scale, op.adds, out);
            Ok(())
        })
    }

    fn rms_norm(&mut self, op: &RmsNorm) {
        self.update(op.out, |engine, out| {
            let first = op.first_row * op.width;
            let x = &engine.buffer(op.x)[first..first + op.n_rows * op.width];
            let (weight, out) = (engine.vector(op.weight), &mut out[..x.len()]);
            match engine.arithmetic {
                Arithmetic::Reference => rms_norm::reference(x, weight, op.eps, out),
                Arithmetic::Fast(_, Products::Defined(order)) => rms_norm::in_order(order, x, weight, op.eps, out),
                Arithmetic::Fast(..) => rms_norm::fast(x, weight, op.eps, out),
            }
        });
    }

    fn layer_norm(&mut self, op: &LayerNorm) {
        self.update(op.out, |engine, out| {
            let first = op.first_row * op.width;
            let x = &engine.buffer(op.x)[first..first + op.n_rows * op.width];
            let bias = op.bias.map(|bias| engine.vector(bias));
            let (weight, out) = (engine.vector(op.weight), &mut out[..x.len()]);
            match engine.arithmetic {
                Arithmetic::Reference => layer_norm::reference(x, weight, bias, op.eps, out),
                Arithmetic::Fast(_, Products::Defined(order)) => {
                    layer_norm::in_order(order, x, weight, bias, op.eps, out);
                }
                Arithmetic::Fast(..) => layer_norm::fast(x, weight, bias, op.eps, out),
            }
        });
    }

    fn matmul(&mut self, op: &Matmul) -> Result<(), crate::ShapeError> {
        self.update(op.out, |engine, out| {
            let weight = engine.matrix(op.weight)?;
            let first = op.first_row * weight.shape.n_cols;
            let x = &engine.buffer(op.x)[first..first + op.n_rows * weight.shape.n_cols];
            let out = &mut out[..op.n_rows * weight.shape.n_rows];
            let add = matmul::Add {
                bias: op.bias.map(|bias| engine.vector(bias)),
                residual: match op.residual {
                    None => matmul::Residual::None,
                    Some(residual) if residual == op.out => matmul::Residual::Out,
                    Some(residual) => matmul::Residual::Rows(engine.buffer(residual)),
                },
            };
            engine.multiply(weight, x, &add, out);
            Ok(())
        })
    }

    pub(super) fn multiply(&self, weight: Matrix<'_>, x: &[f32], add: &matmul::Add<'_>, out: &mut [f32]) {
        match (&self.arithmetic, weight.shape.weight_type.packing().quantised()) {
            (Arithmetic::Reference, _) => matmul::reference(weight, x, add, out),
            (Arithmetic::Fast(crew, Products::Int8), Some(packing)) => {
                matmul::int8::fast(weight, packing, x, add, out, crew);
            }
            (Arithmetic::Fast(_, Products::Defined(_)), Some(packing)) => {
                matmul::int8::reference(weight, packing, x, add, out);
            }
            (Arithmetic::Fast(_, Products::Defined(order)), None) => matmul::in_order(*order, weight, x, add, out),
            (Arithmetic::Fast(crew, _), _) => matmul::fast(weight, x, add, out, crew),
        }
    }

    fn rope(&mut self, op: &Rope, rows: &[Row]) {
        let angles = self.angles(&op.turn, rows);
        self.update(op.x, |engine, x| {
            let width = op.n_heads * op.head_size;
            let heads = rope::Heads::new(op.head_size, &op.turn);
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => rope::reference,
                Arithmetic::Fast(..) => rope::fast,
            };
            for (row, angles) in x.chunks_exact_mut(width).zip(angles.chunks_exact(op.turn.n_rotated())) {
                kernel(row, angles, heads);
            }
        });
    }

    /// The angles of a turn, computed once in a run for all layers alike.
    fn angles(&mut self, turn: &Turn, rows: &[Row]) -> Arc<[f32]> {
        if let Some((_, angles)) = self.angles.iter().find(|(known, _)| known == turn) {
            return angles.clone();
        }
        let angles: Arc<[f32]> = turn.angles(rows).into();
        self.angles.push((turn.clone(), angles.clone()));
        angles
    }

    fn rope_kv_write(&mut self, op: &RopeKvWrite, rows: &[Row]) {
        use rope_kv_write::Part;
        let angles = op.turn.as_ref().map(|turn| self.angles(turn, rows));
        let angles = angles.as_deref().unwrap_or_default();
        for (part, to) in [(Part::Queries, op.q), (Part::Keys, op.k_cache), (Part::Values, op.v_cache)] {
            self.update(to, |engine, to| {
                let kernel = match engine.arithmetic {
                    Arithmetic::Reference => rope_kv_write::reference,
                    Arithmetic::Fast(_, Products::Defined(_)) => rope_kv_write::fast_kept_as_defined,
                    Arithmetic::Fast(..) => rope_kv_write::fast,
                };
                kernel(op, rows, engine.buffer(op.qkv), angles, part, to);
            });
        }
    }

    fn gate_up(&mut self, op: &GateUp) -> Result<(), crate::ShapeError> {
        self.update(op.out, |engine, out| {
            let weight = engine.matrix(op.weight)?;
            let x = &engine.buffer(op.x)[..op.n_rows * weight.shape.n_cols];
            let out = &mut out[..op.n_rows * weight.shape.n_rows / 2];
            let mut products = vec![0.0; out.len() * 2];
            engine.multiply(weight, x, &matmul::NOTHING, &mut products);
            match &engine.arithmetic {
                Arithmetic::Reference => gate_up::reference(op.function, &products, out),
                Arithmetic::Fast(crew, _) => {
                    let width = out.len() / op.n_rows;
                    let (size, rows) = (products.len(), products.chunks(2 * width).zip(out.chunks_mut(width)));
                    crew.each(size, rows, || (), |(), (products, out)| gate_up::fast(op.function, products, out));
                }
            }
            Ok(())
        })
    }

    fn kv_write(&mut self, op: &KvWrite, rows: &[Row]) {
        for (from, cache) in [(op.k, op.k_cache), (op.v, op.v_cache)] {
            self.update(cache, |engine, cache| {
                let kernel = match engine.arithmetic {
                    Arithmetic::Reference | Arithmetic::Fast(_, Products::Defined(_)) => kv_write::reference,
                    Arithmetic::Fast(..) => kv_write::fast,
                };
                kernel(engine.buffer(from), rows, op.layout, cache);
            });
        }
    }

    fn attention(&mut self, op: &Attention, rows: &[Row]) {
        self.update(op.out, |engine, out| {
            let bias = match op.bias {
                None => &[],
                Some(PositionBias::Slopes(vector) | PositionBias::Distances { table: vector, .. }) => {
                    engine.vector(vector)
                }
            };
            let [k, v] = [op.k_cache, op.v_cache].map(|cache| bytemuck::cast_slice(engine.buffer(cache)));
            let sinks = op.sinks.map_or(&[][..], |sinks| engine.vector(sinks));
            let caches = attention::Caches { k, v, bias, sinks };
            let q = engine.buffer(op.q);
            let out = &mut out[..rows.len() * op.n_heads * op.head_size];
            match &engine.arithmetic {
                Arithmetic::Reference => attention::reference(op, rows, q, caches, out),
                Arithmetic::Fast(_, Products::Defined(order)) => in_order(*order, op, rows, q, caches, out),
                Arithmetic::Fast(crew, _) => attention::together::fast(op, rows, q, caches, out, crew),
            }
        });
    }

    fn activate(&mut self, op: &Activate) {
        self.update(op.out, |engine, out| {
            let len = op.n_rows * op.width;
            let factor = op.factor.map(|factor| &engine.buffer(factor)[..len]);
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => activate::reference,
                Arithmetic::Fast(..) => activate::fast,
            };
            kernel(op.function, &engine.buffer(op.x)[..len], factor, &mut out[..len]);
        });
    }

    fn add_rows(&mut self, op: &AddRows) {
        self.update(op.out, |engine, out| {
            let len = op.n_rows * op.width;
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => add_rows::reference,
                Arithmetic::Fast(..) => add_rows::fast,
            };
            kernel(&engine.buffer(op.x)[..len], op.scale, &mut out[..len]);
        });
    }

    fn scale_rows(&mut self, op: &ScaleRows) {
        self.update(op.x, |engine, x| {
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => scale_rows::reference,
                Arithmetic::Fast(..) => scale_rows::fast,
            };
            kernel(&mut x[..op.n_rows * op.width], op.scale, op.cap);
        });
    }

    fn conv_write(&mut self, op: &ConvWrite, rows: &[Row]) {
        self.update(op.cache, |engine, cache| {
            conv_write::reference(engine.buffer(op.x), rows, op.layout, cache);
        });
    }

    fn short_conv(&mut self, op: &ShortConv, rows: &[Row]) {
        self.update(op.out, |engine, out| {
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => short_conv::reference,
                Arithmetic::Fast(..) => short_conv::fast,
            };
            kernel(op, rows, engine.buffer(op.x), engine.vector(op.taps), engine.buffer(op.cache), out);
        });
    }

    fn round_rows(&mut self, op: &RoundRows) {
        self.update(op.x, |engine, x| {
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => round_rows::reference,
                Arithmetic::Fast(..) => round_rows::fast,
            };
            for row in x.chunks_exact_mut(op.width).take(op.n_rows) {
                kernel(row, op.to);
            }
        });
    }
}
