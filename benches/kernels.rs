//! The native engine's products by rows: at one row the memory's speed counts, at 256 that of the multiply-adds.

#![allow(missing_docs, reason = "criterion's macros define undocumented items")]

use code_explainer_engine_native::kernels::Compute;
use code_explainer_engine_native::kernels::gemm::{PackedF32, gemm};
use code_explainer_engine_native::kernels::isa::Isa;
use code_explainer_engine_native::kernels::matrix::{Matrix, MatrixMut};
use code_explainer_engine_native::kernels::panels::Epilogue;
use code_explainer_engine_native::kernels::quantized_gemm::quantized_gemm;
use code_explainer_engine_native::kernels::quantized_rows::QuantizedRows;
use code_explainer_engine_native::kernels::quantized_weights::{Bits, Group, PackedQuantized};
use code_explainer_engine_native::pool::Pool;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;

/// Inputs and outputs of a SmolLM2-135M block's gate and up.
const SHAPE: (usize, usize) = (576, 3072);
/// So many that they do not stay in the caches from one use to the next: 170 MB.
const COPIES: usize = 24;

fn products(criterion: &mut Criterion) {
    let (inputs, outputs) = SHAPE;
    let pack = || PackedF32::pack(inputs, &[outputs], "weights", |_, _, out| out.fill(0.01));
    let weights: Vec<_> = (0..COPIES)
        .map(|_| pack().expect("enough memory"))
        .collect();
    for isa in Isa::supported() {
        let compute = Compute {
            pool: Pool::new(0).expect("threads"),
            isa,
        };
        let mut group = criterion.benchmark_group(format!("fp32 product, {isa}"));
        for rows in [1, 6, 32, 256] {
            let x = vec![0.01; rows * inputs];
            let mut y = vec![0.0; rows * outputs];
            // Elements are multiply-adds.
            group.throughput(Throughput::Elements((rows * inputs * outputs) as u64));
            let mut next = weights.iter().cycle();
            group.bench_function(BenchmarkId::from_parameter(rows), |bencher| {
                bencher.iter(|| {
                    let w = next.next().expect("endless");
                    let mut y = MatrixMut::new(&mut y, rows, outputs);
                    gemm(
                        &compute,
                        Matrix::new(&x, rows, inputs),
                        w,
                        &mut y,
                        Epilogue::Store,
                    );
                });
            });
        }
    }
}

/// As [`products`], with weights in 8 and 4 bits; quantizing the activations included.
fn quantized_products(criterion: &mut Criterion) {
    let (inputs, outputs) = SHAPE;
    for (bits, name) in [(Bits::Eight, "int8"), (Bits::Four, "int4")] {
        let group = Group {
            scale: f16::ONE,
            min: f16::ONE,
            q: [3; 32],
        };
        let pack = || {
            PackedQuantized::pack(bits, inputs, &[outputs], "weights", |_, _, out| {
                out.fill(group);
                Ok(())
            })
        };
        // Smaller weights take more copies to leave the caches.
        let weights: Vec<_> = (0..4 * COPIES)
            .map(|_| pack().expect("enough memory"))
            .collect();
        for isa in Isa::supported() {
            let compute = Compute {
                pool: Pool::new(0).expect("threads"),
                isa,
            };
            let mut criterion = criterion.benchmark_group(format!("{name} product, {isa}"));
            for rows in [1, 6, 32, 256] {
                let x = vec![0.01; rows * inputs];
                let mut y = vec![0.0; rows * outputs];
                let mut room = QuantizedRows::new(rows, inputs).expect("enough memory");
                criterion.throughput(Throughput::Elements((rows * inputs * outputs) as u64));
                let mut next = weights.iter().cycle();
                criterion.bench_function(BenchmarkId::from_parameter(rows), |bencher| {
                    bencher.iter(|| {
                        let w = next.next().expect("endless");
                        room.quantize(&compute, Matrix::new(&x, rows, inputs), inputs);
                        let mut y = MatrixMut::new(&mut y, rows, outputs);
                        quantized_gemm(&compute, &room, w, &mut y, Epilogue::Store, None);
                    });
                });
            }
        }
    }
}

fn forks(criterion: &mut Criterion) {
    let pool = Pool::new(0).expect("threads");
    criterion.bench_function("fork and join", |bencher| {
        bencher.iter(|| {
            pool.run(pool.threads(), &|task, _| {
                std::hint::black_box(task);
            });
        });
    });
}

criterion_group!(kernels, products, quantized_products, forks);
criterion_main!(kernels);
