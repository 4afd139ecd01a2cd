// randomNormal: y[i] = std * z_i, z standard normal, a function of (seed, stream, i) alone
//
// contract   src/tensor/ops/random.ts      (reference; same bits)
// dtype      y f32 or bf16; arithmetic f64, one rounding to f32, for bf16 a second
// tiling     8192 numbers per task
// why so     log, sin and cos are sums of f64 products in a fixed order, without fused steps and without a
//            library: JavaScript has neither, and its library may differ from ours in the last place
// versions   v1 (this file)

use std::f64::consts::{LN_2, PI};

use super::philox::block_words;
use crate::args::{Args, FloatsMut};
use crate::bf16::Element;
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins};

/// Numbers per task; a multiple of `GROUP`.
const CHUNK: usize = 8192;
/// Numbers that one turn of the inner loop makes: 16 blocks of 4.
const GROUP: usize = 64;
const BLOCKS: usize = GROUP / 4;

/// What one call draws from.
#[derive(Clone, Copy)]
struct Source {
    seed: u64,
    stream: u64,
    std: f64,
}

pub fn random_normal(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let y = a.floats("y")?;
    let n = a.usize("n")?;
    let std = a.f64("std")?;
    let (seed, stream) = (a.usize("seed")? as u64, a.usize("stream")? as u64);
    a.end()?;
    let source = Source { seed, stream, std };
    match y.slice_mut(n)? {
        FloatsMut::F32(y) => fill(ctx, y, source),
        FloatsMut::Bf16(y) => fill(ctx, y, source),
    }
    Ok(())
}

fn fill<Y: Element>(ctx: &Ctx, y: &mut [Y], source: Source) {
    let n = y.len();
    let out = Disjoint::new(y);
    ctx.pool.run(n.div_ceil(CHUNK), &|task, _| {
        let start = task * CHUNK;
        // SAFETY: each task has a chunk of its own.
        let part = unsafe { out.part(start, CHUNK.min(n - start)) };
        by_isa!(ctx.isa, fill_chunk(part, source, start));
    });
}

isa_twins! {
    /// Numbers `start..` of the source; `start` is a multiple of `GROUP`.
    fn fill_chunk<Y: Element>(y: &mut [Y], source: Source, start: usize) {
        let mut block = (start / 4) as u64;
        for part in y.chunks_mut(GROUP) {
            let z = normals(source, block);
            for (y, z) in part.iter_mut().zip(z) {
                *y = Y::from_f32((z * source.std) as f32);
            }
            block += BLOCKS as u64;
        }
    }
}

/// The numbers of `BLOCKS` blocks. Words lie apart by position, so that each step is one vector loop.
#[inline(always)]
fn normals(source: Source, first: u64) -> [f64; GROUP] {
    let mut words = [[0u32; BLOCKS]; 4];
    for b in 0..BLOCKS {
        let [w0, w1, w2, w3] = block_words(source.seed, source.stream, first + b as u64);
        words[0][b] = w0;
        words[1][b] = w1;
        words[2][b] = w2;
        words[3][b] = w3;
    }
    let mut z = [0.0; GROUP];
    for pair in 0..2 {
        for b in 0..BLOCKS {
            let (cos, sin) = polar(words[2 * pair][b], words[2 * pair + 1][b]);
            z[4 * b + 2 * pair] = cos;
            z[4 * b + 2 * pair + 1] = sin;
        }
    }
    z
}

/// Box-Muller: two independent standard normals from two words.
#[inline(always)]
fn polar(radius: u32, angle: u32) -> (f64, f64) {
    let r = (-2.0 * log_unit(radius)).sqrt();
    let (cos, sin) = cos_sin_turn(angle);
    (r * cos, r * sin)
}

/// ln((word + 1/2) / 2^32): never 0 or 1 inside the logarithm.
#[inline(always)]
fn log_unit(word: u32) -> f64 {
    const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    // odd = 2 word + 1 = m 2^e with m in [sqrt(1/2), sqrt(2)), so that s below is small.
    let odd = word as f64 * 2.0 + 1.0;
    let shifted = odd.to_bits() - SQRT_HALF;
    let e = (shifted >> 52) as i32 as f64;
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff) + SQRT_HALF);
    // ln m = 2 artanh s = 2 s (1 + s^2 / 3 + s^4 / 5 + ...), s^2 <= 0.0295: the term after the last is 2e-18.
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut p = 1.0 / 21.0;
    for denominator in [19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
        p = p * square + 1.0 / denominator;
    }
    let twice = s + s;
    (e - 33.0) * LN_2 + (twice + twice * (square * p))
}

/// Cosine and sine of 2 pi word / 2^32.
#[inline(always)]
fn cos_sin_turn(word: u32) -> (f64, f64) {
    // The nearest quarter turn comes off exactly, in integers; |a| <= pi / 4 remains.
    let quarter = word.wrapping_add(1 << 29) >> 30;
    let rest = word.wrapping_sub(quarter << 30) as i32;
    let a = rest as f64 * (PI / 2_147_483_648.0);
    let square = a * a;
    // Taylor: sin up to a^15 / 15!, cos up to a^16 / 16!; the next terms are below 5e-17.
    let mut p = -1.0 / 1_307_674_368_000.0;
    for factorial in [6_227_020_800.0, -39_916_800.0, 362_880.0, -5_040.0, 120.0, -6.0] {
        p = p * square + 1.0 / factorial;
    }
    let sin = a + a * (square * p);
    let mut p = 1.0 / 20_922_789_888_000.0;
    for factorial in [
        -87_178_291_200.0,
        479_001_600.0,
        -3_628_800.0,
        40_320.0,
        -720.0,
        24.0,
        -2.0,
    ] {
        p = p * square + 1.0 / factorial;
    }
    let cos = 1.0 + square * p;
    let (x, y) = if quarter & 1 == 1 { (sin, cos) } else { (cos, sin) };
    let x = if quarter == 1 || quarter == 2 { -x } else { x };
    (x, if quarter >= 2 { -y } else { y })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Ledger, Memory};
    use crate::bf16;
    use crate::isa::Isa;
    use crate::pool::Pool;

    #[repr(align(64))]
    struct Arena([u8; 1 << 17]);

    fn run(
        threads: usize,
        isa: Isa,
        dtype: f64,
        n: usize,
        seed: f64,
        stream: f64,
    ) -> Result<Vec<u8>, KernelError> {
        let mut arena = Box::new(Arena([0xee; 1 << 17]));
        let memory = Memory::new(&mut arena.0);
        let words = [0.0, dtype, n as f64, 1.0, seed, stream];
        let ledger = Ledger::default();
        let pool = Pool::new(threads);
        let mut args = Args::new(&memory, &words, &ledger);
        random_normal(&Ctx::new(&pool, isa), &mut args)?;
        Ok(arena.0.to_vec())
    }

    fn f32s(bytes: &[u8], n: usize) -> Vec<f32> {
        let words = bytes[..4 * n].chunks_exact(4);
        words
            .map(|w| f32::from_le_bytes([w[0], w[1], w[2], w[3]]))
            .collect()
    }

    #[test]
    fn log_cos_and_sin_agree_with_the_library_to_a_few_units_in_the_last_place() {
        let edges = [
            0,
            1,
            2,
            1 << 29,
            (1 << 29) - 1,
            1 << 30,
            1 << 31,
            3 << 30,
            u32::MAX,
        ];
        let spread = (0..200_000u32).map(|i| i.wrapping_mul(2_654_435_761));
        for word in edges.into_iter().chain(spread) {
            let exact = ((word as f64 + 0.5) / 4_294_967_296.0).ln();
            assert!(
                (log_unit(word) - exact).abs() <= 1e-15 * exact.abs() + 1e-25,
                "{word}"
            );
            let angle = 2.0 * PI * (word as f64 / 4_294_967_296.0);
            let (cos, sin) = cos_sin_turn(word);
            assert!((cos - angle.cos()).abs() < 1.5e-15, "cos of {word}");
            assert!((sin - angle.sin()).abs() < 1.5e-15, "sin of {word}");
            assert!((cos * cos + sin * sin - 1.0).abs() < 1e-15, "{word}");
        }
    }

    #[test]
    fn threads_and_instruction_sets_give_the_same_bits_and_write_no_more_than_n() {
        for (dtype, n) in [(0.0, 3 * CHUNK + 37), (1.0, CHUNK + 3), (0.0, 1), (1.0, 0)] {
            let expected = run(1, Isa::Portable, dtype, n, 7.0, 3.0).unwrap();
            for isa in Isa::usable() {
                assert_eq!(run(3, isa, dtype, n, 7.0, 3.0).unwrap(), expected, "{isa}");
            }
            let end = n * if dtype == 0.0 { 4 } else { 2 };
            assert!(expected[end..].iter().all(|byte| *byte == 0xee));
        }
    }

    #[test]
    fn it_gives_the_recorded_bits_that_the_reference_gives_too() {
        let lines = include_str!("../../../../test/recorded/randomNormal.txt").lines();
        for line in lines {
            let fields: Vec<&str> = line.split(' ').collect();
            let number = |i: usize| fields[i].parse::<f64>().unwrap();
            let (from, n) = (number(2) as usize, fields.len() - 3);
            let bytes = run(2, Isa::detect(), 0.0, from + n, number(0), number(1)).unwrap();
            for (value, bits) in f32s(&bytes, from + n)[from..].iter().zip(&fields[3..]) {
                assert_eq!(format!("{:08x}", value.to_bits()), *bits, "{line}");
            }
        }
    }

    #[test]
    fn bf16_numbers_are_the_f32_numbers_rounded() {
        let n = 1000;
        let exact = f32s(&run(1, Isa::detect(), 0.0, n, 5.0, 0.0).unwrap(), n);
        let stored = run(1, Isa::detect(), 1.0, n, 5.0, 0.0).unwrap();
        for (i, value) in exact.iter().enumerate() {
            let bits = u16::from_le_bytes([stored[2 * i], stored[2 * i + 1]]);
            assert_eq!(bits, bf16::from_f32(*value));
        }
    }

    #[test]
    fn moments_are_those_of_a_standard_normal() {
        let n = 30_000;
        let z = f32s(&run(2, Isa::detect(), 0.0, n, 1.0, 1.0).unwrap(), n);
        let moment = |k: i32| z.iter().map(|v| (*v as f64).powi(k)).sum::<f64>() / n as f64;
        // Four standard errors: 1, 2, 15 and 96 are the variances of z, z^2, z^3 and z^4.
        for (k, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let error = 4.0 * f64::sqrt(variance / n as f64);
            assert!(
                (moment(k) - expected).abs() < error,
                "moment {k} is {}",
                moment(k)
            );
        }
        let neighbours = z.windows(2).map(|w| (w[0] * w[1]) as f64).sum::<f64>() / n as f64;
        assert!(neighbours.abs() < 4.0 / (n as f64).sqrt());
    }

    #[test]
    fn a_seed_that_is_no_count_is_refused_by_name() {
        assert_eq!(
            run(1, Isa::Portable, 0.0, 4, -1.0, 0.0).unwrap_err().param,
            Some("seed")
        );
        assert_eq!(
            run(1, Isa::Portable, 0.0, 4, 0.0, 0.5).unwrap_err().param,
            Some("stream")
        );
    }
}
