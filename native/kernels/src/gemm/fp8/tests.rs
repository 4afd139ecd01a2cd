//! The four products against their definition, bit for bit, in memory whose every byte is NaN but for what is valid.

mod gradients;
mod products;

use gradients::check_gradient;
use products::check_product;

use super::decode::E4m3;
use crate::bf16::{self, Element};
use crate::gemm::panels_len;
use crate::gemm::tests::{BF16, F32};
use crate::isa::Isa;

const NAN_CODE: u8 = 0x7f;
/// Of an arena that holds any case: 4 MiB, filled anew for each of some thousands.
const WORDS: usize = 1 << 19;

struct Random(u32);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        (self.0 >> 4) as usize % limit
    }

    fn codes(&mut self, len: usize) -> Vec<u8> {
        // Every code but the two NaNs.
        (0..len)
            .map(|_| [0, 0x80][self.below(2)] | self.below(0x7f) as u8)
            .collect()
    }

    fn scales(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (1 + self.below(4000)) as f32 * 1e-5).collect()
    }
}

/// One output by its definition.
fn sum(isa: Isa, promotion: usize, terms: &[(u8, u8)], scale: impl Fn(usize) -> f32) -> f32 {
    let mut acc = 0.0f32;
    for (block, terms) in terms.chunks(promotion).enumerate() {
        let at = |i: usize| {
            terms
                .get(i)
                .map_or((0.0, 0.0), |(x, w)| (E4m3(*x).to_f32(), E4m3(*w).to_f32()))
        };
        let mut partial = 0.0f32;
        if isa == Isa::Amx {
            for from in (0..terms.len()).step_by(32) {
                let chain = |first: usize| {
                    (from + first..(from + 32).min(terms.len()).next_multiple_of(2))
                        .step_by(2)
                        .fold(0.0f32, |sum, i| at(i).0.mul_add(at(i).1, sum))
                };
                partial += chain(0) + chain(1);
            }
        } else {
            for i in (0..terms.len()).step_by(2) {
                let (odd, even) = (at(i + 1), at(i));
                partial = even.0.mul_add(even.1, odd.0.mul_add(odd.1, partial));
            }
        }
        acc = partial.mul_add(scale(block * promotion / 128), acc);
    }
    acc
}

/// Panels of `batch` matrices [n, k]; padding is NaN.
fn panels(w: &[u8], (batch, n, k): (usize, usize, usize)) -> Vec<u8> {
    let mut out = vec![NAN_CODE; batch * panels_len(n, k)];
    for (e, out) in out.chunks_exact_mut(panels_len(n, k).max(1)).enumerate() {
        for i in 0..n {
            for j in 0..k {
                let line = i / 32 * k.next_multiple_of(2) / 2 + j / 2;
                out[line * 64 + i % 32 * 2 + j % 2] = w[(e * n + i) * k + j];
            }
        }
    }
    out
}

/// How a case is computed.
#[derive(Clone, Copy, Debug)]
struct How {
    isa: Isa,
    threads: usize,
    promotion: usize,
    transposed: bool,
    y: f64,
}

fn stored(sum: f32, dtype: f64) -> u32 {
    if dtype == BF16 {
        bf16::round(sum).to_bits()
    } else {
        sum.to_bits()
    }
}

fn ascending(random: &mut Random, experts: usize, most: usize) -> Vec<i32> {
    let mut offsets = vec![0];
    for _ in 0..experts {
        let rows = if random.below(4) == 0 {
            0
        } else {
            random.below(most + 1)
        };
        offsets.push(offsets[offsets.len() - 1] + rows as i32);
    }
    offsets
}

#[test]
fn in_a_thousand_random_shapes_nothing_invalid_reaches_a_valid_output_and_all_bits_are_right() {
    let mut random = Random(0x1234_5677);
    let isas = Isa::usable();
    for round in 0..1000 {
        let how = How {
            isa: isas[round % isas.len()],
            threads: 1 + random.below(2),
            promotion: [16, 32, 64, 128][random.below(4)],
            transposed: random.below(2) == 1,
            y: [F32, BF16][random.below(2)],
        };
        let experts = [1, 1, 1 + random.below(4)][random.below(3)];
        let most = [3, 20, 40][random.below(3)];
        let offsets = ascending(&mut random, experts, most);
        let k = [1 + random.below(9), 1 + random.below(300)][random.below(2)];
        let n = [1 + random.below(5), 1 + random.below(70), 120 + random.below(20)][random.below(3)];
        check_product(how, &offsets, (1 + random.below(30), n, k), round as u32 * 2 + 1);
        let most = [3, 140, 300][random.below(3)];
        let offsets = ascending(&mut random, experts, most);
        let (n, k) = (1 + random.below(40), 1 + random.below(40));
        check_gradient(how, &offsets, (n, k), round as u32 * 2 + 1);
    }
}

#[test]
fn several_tasks_tiles_panels_and_blocks_of_k_have_the_bits_of_their_definition() {
    for isa in Isa::usable() {
        for (threads, promotion, transposed) in [(1, 128, false), (2, 32, true)] {
            let how = How {
                isa,
                threads,
                promotion,
                transposed,
                y: F32,
            };
            check_product(how, &[0, 75], (80, 610, 1101), 3);
            check_product(how, &[0, 0, 300, 333], (300, 70, 530), 5);
            check_gradient(how, &[0, 1200], (75, 130), 7);
            check_gradient(how, &[0, 130, 130, 700], (300, 40), 9);
        }
    }
}

#[test]
fn nothing_to_sum_gives_zeros_and_adds_nothing() {
    for isa in Isa::usable() {
        let how = How {
            isa,
            threads: 2,
            promotion: 128,
            transposed: false,
            y: F32,
        };
        check_product(how, &[0, 3], (4, 40, 0), 1);
        check_product(how, &[0, 0], (4, 40, 8), 1);
        check_gradient(how, &[0, 0], (5, 6), 1);
    }
}
