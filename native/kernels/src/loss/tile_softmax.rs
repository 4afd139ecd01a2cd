//! Softmax of logits that lie in tiles as the product leaves them, `[panel][32 rows][32]`, by 512-bit registers, with the
//! bits of `softmax.rs`, which is the plain twin. The gradient is packed on the way for the two products behind it.

use std::arch::x86_64::*;

use super::softmax::RowLoss;
use crate::gemm::micro::{AMX_ROWS as ROWS, PANEL, RUN};
use crate::gemm::shuffle::store_columns;
use crate::math::{LANES, Lanes, log};

/// Floats of a tile.
pub const TILE: usize = ROWS * PANEL;

/// Greatest logits so far, sixteen columns apart.
#[derive(Clone, Copy)]
pub struct Greatest([__m512; ROWS]);

impl Greatest {
    /// # Safety
    /// The processor has AVX-512.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn none() -> Greatest {
        Greatest([_mm512_set1_ps(f32::NEG_INFINITY); ROWS])
    }

    /// Looks at one tile; a NaN is passed over.
    ///
    /// # Safety
    /// The tile has `rows` rows; the processor has AVX-512.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn see(&mut self, tile: *const f32, rows: usize) {
        for row in 0..rows {
            // SAFETY: inside the tile.
            let (low, high) = unsafe {
                let line = tile.add(row * PANEL);
                (_mm512_loadu_ps(line), _mm512_loadu_ps(line.add(16)))
            };
            // `vmaxps` gives its second operand unless the first is greater.
            self.0[row] = _mm512_max_ps(high, _mm512_max_ps(low, self.0[row]));
        }
    }
}

/// The logits of up to 32 rows.
#[derive(Clone, Copy)]
pub struct Logits {
    pub start: *mut f32,
    pub rows: usize,
    /// Rows of the packed gradient: 16 or 32.
    pub height: usize,
    pub columns: usize,
}

/// Where the gradient goes beside its place as rows: as columns, 32 of them `stride` words apart.
#[derive(Clone, Copy)]
pub struct Turned {
    pub start: *mut u32,
    pub stride: usize,
}

impl Logits {
    fn panels(&self) -> usize {
        self.columns.div_ceil(PANEL)
    }

    unsafe fn at(&self, row: usize, column: usize) -> *mut f32 {
        // SAFETY: the caller's row and column are there.
        unsafe {
            self.start
                .add(column / PANEL * TILE + row * PANEL + column % PANEL)
        }
    }

    /// Gives the columns behind the last a weight of zero.
    ///
    /// # Safety
    /// The last panel's tile is there.
    pub unsafe fn mask_rest(&self) {
        for column in self.columns..self.panels() * PANEL {
            for row in 0..self.rows {
                // SAFETY: inside the last tile.
                unsafe { *self.at(row, column) = f32::NEG_INFINITY };
            }
        }
    }

    /// Losses and hits of the rows.
    ///
    /// # Safety
    /// All tiles are there, `greatest` has seen them, targets are columns; the processor has AVX-512 with BF16.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn losses(
        &self,
        greatest: &Greatest,
        targets: &[usize],
        mut found: impl FnMut(usize, RowLoss),
    ) {
        // SAFETY: by this function's contract.
        unsafe {
            let first = self.look(greatest, targets);
            let sums = self.exponentials::<false>(&first.greatest);
            for row in 0..self.rows {
                found(row, first.loss(row, sums[row]));
            }
        }
    }

    /// As `losses`; the logits become grad_scale * (softmax - onehot(target)) as bf16, packed as rows of a left operand,
    /// `[panel][height][16]` words from `start` on, and, if asked for, its columns as 32 rows of one.
    ///
    /// # Safety
    /// As `losses`; `turned` has room for 512 words a panel.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn gradients(
        &self,
        greatest: &Greatest,
        targets: &[usize],
        grad_scale: f32,
        turned: Option<Turned>,
        mut found: impl FnMut(usize, RowLoss),
    ) {
        let (mut factors, mut at_target) = ([0.0; ROWS], [0.0; ROWS]);
        // SAFETY: by this function's contract.
        unsafe {
            let first = self.look(greatest, targets);
            let sums = self.exponentials::<true>(&first.greatest);
            for row in 0..self.rows {
                found(row, first.loss(row, sums[row]));
                factors[row] = grad_scale / sums[row];
                at_target[row] = grad_scale * (*self.at(row, targets[row]) / sums[row] - 1.0);
            }
            self.pack(&factors, turned);
            for row in 0..self.rows {
                self.put(row, targets[row], at_target[row], turned);
            }
        }
    }

    unsafe fn look(&self, greatest: &Greatest, targets: &[usize]) -> First {
        let mut first = First {
            greatest: [0.0; ROWS],
            at_target: [0.0; ROWS],
            hit: [false; ROWS],
        };
        // SAFETY: targets are columns; sixteen floats each.
        unsafe {
            for row in 0..self.rows {
                let lanes = std::mem::transmute::<__m512, [f32; 16]>(greatest.0[row]);
                let most = lanes
                    .iter()
                    .fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
                let target = *self.at(row, targets[row]);
                first.greatest[row] = most;
                first.at_target[row] = target - most;
                first.hit[row] =
                    target == most && (0..targets[row]).all(|column| *self.at(row, column) != most);
            }
        }
        first
    }

    /// Replaces the logits by exp(logit - greatest), if `STORE`, and returns the rows' sums over virtual lanes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn exponentials<const STORE: bool>(&self, greatest: &[f32; ROWS]) -> [f32; ROWS] {
        let mut lanes = [[_mm512_setzero_ps(); LANES / 16]; ROWS];
        for panel in 0..self.panels() {
            let half = panel % 2 * 2;
            for row in 0..self.rows {
                let most = _mm512_set1_ps(greatest[row]);
                for i in 0..2 {
                    // SAFETY: inside the panel's tile.
                    unsafe {
                        let at = self.start.add(panel * TILE + row * PANEL + i * 16);
                        let value = exp(_mm512_sub_ps(_mm512_loadu_ps(at), most));
                        if STORE {
                            _mm512_storeu_ps(at, value);
                        }
                        lanes[row][half + i] = _mm512_add_ps(lanes[row][half + i], value);
                    }
                }
            }
        }
        let mut sums = [0.0; ROWS];
        for row in 0..self.rows {
            // SAFETY: 64 floats each.
            sums[row] = Lanes(unsafe { std::mem::transmute::<[__m512; 4], [f32; LANES]>(lanes[row]) }).sum();
        }
        sums
    }

    /// Rounds and packs `factor * value`, panel by panel: what is written never lies behind what is still to be read.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn pack(&self, factors: &[f32; ROWS], turned: Option<Turned>) {
        let mut lines = [_mm512_setzero_si512(); ROWS];
        for panel in 0..self.panels() {
            if let Some(Turned { start, stride }) = turned {
                let next = start.wrapping_add((panel + 1) * stride);
                for line in 0..PANEL {
                    _mm_prefetch::<_MM_HINT_ET0>(next.wrapping_add(line * RUN).cast());
                }
            }
            // SAFETY: inside the panel's tile; packed it takes half of that; `turned` has room.
            unsafe {
                let tile = self.start.add(panel * TILE);
                for row in 0..self.rows {
                    let factor = _mm512_set1_ps(factors[row]);
                    let low = _mm512_mul_ps(_mm512_loadu_ps(tile.add(row * PANEL)), factor);
                    let high = _mm512_mul_ps(_mm512_loadu_ps(tile.add(row * PANEL + 16)), factor);
                    lines[row] = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                }
                let packed = self.start.cast::<u32>().add(panel * self.height * RUN);
                for row in 0..self.rows {
                    _mm512_storeu_si512(packed.add(row * RUN).cast(), lines[row]);
                }
                if let Some(turned) = turned {
                    let pair = |pair| (lines[2 * pair], lines[2 * pair + 1]);
                    store_columns(pair, PANEL, turned.start.add(panel * turned.stride));
                }
            }
        }
    }

    /// Writes one element of the packed gradient.
    unsafe fn put(&self, row: usize, column: usize, value: f32, turned: Option<Turned>) {
        let (panel, inside) = (column / PANEL, column % PANEL);
        let code = crate::bf16::from_f32(value);
        // SAFETY: the element is there, by the callers' contracts.
        unsafe {
            let packed = self
                .start
                .cast::<u32>()
                .add(panel * self.height * RUN + row * RUN);
            *packed.cast::<u16>().add(inside) = code;
            if let Some(turned) = turned {
                let line = turned.start.add(panel * turned.stride + inside * RUN);
                *line.cast::<u16>().add(row) = code;
            }
        }
    }
}

/// What rows tell before they are changed.
struct First {
    greatest: [f32; ROWS],
    /// The target's logit less the greatest.
    at_target: [f32; ROWS],
    hit: [bool; ROWS],
}

impl First {
    fn loss(&self, row: usize, sum: f32) -> RowLoss {
        RowLoss {
            loss: log(sum) - self.at_target[row],
            hit: self.hit[row],
        }
    }
}

/// `math::exp` for x <= 0, bit for bit: without its guard against overflow, and with 2^n in one factor, which is added to
/// the exponent. A NaN stays one, because a bf16 product's NaN has no low bits that could be added.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn exp(x: __m512) -> __m512 {
    let c = |value: f32| _mm512_set1_ps(value);
    let magic = c(12_582_912.0);
    let shifted = _mm512_fmadd_ps(x, c(std::f32::consts::LOG2_E), magic);
    let n = _mm512_sub_ps(shifted, magic);
    let r = _mm512_fmadd_ps(n, c(-0.693_359_4), x);
    let r = _mm512_fmadd_ps(n, c(2.121_944_4e-4), r);
    let p = c(1.987_569_2e-4);
    let p = _mm512_fmadd_ps(p, r, c(1.398_2e-3));
    let p = _mm512_fmadd_ps(p, r, c(8.333_452e-3));
    let p = _mm512_fmadd_ps(p, r, c(4.166_579_6e-2));
    let p = _mm512_fmadd_ps(p, r, c(1.666_666_5e-1));
    let p = _mm512_fmadd_ps(p, r, c(0.5));
    let p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), c(1.0));
    let power = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
    let scaled = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), power));
    _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, c(-87.336_54)), scaled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::math;
    use crate::pool::FloatMode;

    #[test]
    fn exp_has_the_bits_of_the_common_exp_for_every_argument_of_a_softmax() {
        if !Isa::Avx512Bf16.available() {
            println!("this processor has no AVX-512 with BF16: nothing to compare");
            return;
        }
        let _flush = FloatMode::enter();
        // SAFETY: the processor has the features; sixteen floats.
        let wide = |x: f32| unsafe { std::mem::transmute::<__m512, [f32; 16]>(exp(_mm512_set1_ps(x)))[7] };
        let cut = (-87.336_54_f32).to_bits();
        let around = (cut - 2000..cut + 2000).map(f32::from_bits);
        let grid = (0..400_000).map(|i| i as f32 * (-90.0 / 400_000.0));
        for x in around
            .chain(grid)
            .chain([-0.0, -1e-30, -1000.0, f32::MIN, f32::NEG_INFINITY])
        {
            assert_eq!(wide(x).to_bits(), math::exp(x).to_bits(), "{x:e}");
        }
        assert!(wide(f32::NAN).is_nan());
    }
}
