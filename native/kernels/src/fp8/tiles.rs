//! quantizeTiles: x [R, K] -> codes [R, K], scales [R, K / 128]         dequantizeTiles: and back
//!
//! contract   src/tensor/ops/fp8/quantizeTiles.ts: the same bits
//! layout     rows of codes one after another; E5M6 packs two numbers in three bytes, so that K is even there
//! dtype      x, y f32 or bf16; codes f8e4m3 or e5m6; scales f32; the quotient is a true f32 division
//! limits     rows behind `count` are neither read nor written; any R and K; the last tile of a row, and the last block of rows, may be short: nothing beyond is read
//! tiling     rows of about 32768 numbers per task; whole blocks of rows where they share a scale
//! why so     a tile is read twice, the second time from the first cache
//! versions   v1 (this file); v2 (wide/tiles.rs) for rows of E4M3 where there are 512-bit registers, twice as fast

use super::codec::{Code, E4m3, E5m6, Rule, TILE, greatest_bits};
use super::segment::{Stored, quantize};
#[cfg(target_arch = "x86_64")]
use super::wide;
use crate::args::{Args, Dtype, Floats, Operand, elements};
use crate::bf16::Element;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::ops::Ctx;
use crate::pointwise::rows::{Out, count_rows, for_rows, require_apart};
use crate::pool::Disjoint;
use crate::{by_isa, isa_twins, with_floats, with_floats_mut};

/// Refuses a row of codes that would not end at a byte.
pub(super) fn check_width(codes: &Operand, k: usize) -> Result<(), KernelError> {
    if codes.dtype() != Dtype::E5m6 || k.is_multiple_of(2) {
        return Ok(());
    }
    let message = format!("has rows of {k} numbers, e5m6 packs them in pairs");
    Err(KernelError::new(codes.name(), message))
}

/// The operand `amax`: one greatest magnitude for every tile.
pub(super) fn given_amax(amax: Option<Operand>) -> Result<Option<f32>, KernelError> {
    amax.map(|amax| amax.f32s(1).map(|amax| amax[0])).transpose()
}

#[derive(Clone, Copy)]
struct Job<'a> {
    x: Floats<'a>,
    k: usize,
    given: Option<f32>,
    rule: Rule,
    rows_per_tile: usize,
    codes: Disjoint<'a, u8>,
    scales: Disjoint<'a, f32>,
}

/// x, amax?, codes, scales, count?; R, K, powerOfTwo, floor, rowsPerTile
pub fn quantize_tiles(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (x, amax) = (a.floats("x")?, a.f32s_optional("amax")?);
    let (codes, scales) = (a.codes("codes")?, a.f32s("scales")?);
    let count = a.i32s_optional("count")?;
    let (r, k) = (a.usize("R")?, a.usize("K")?);
    let rule = Rule {
        power_of_two: a.flag("powerOfTwo")?,
        floor: a.f32("floor")?,
    };
    let rows_per_tile = a.usize("rowsPerTile")?.max(1);
    a.end()?;
    check_width(&codes, k)?;
    require_apart(&codes, [&x])?;
    let r = count_rows(count, r)?;
    let size = elements(&[r, k])?;
    let job = Job {
        x: x.slice(size)?,
        k,
        given: given_amax(amax)?,
        rule,
        rows_per_tile,
        codes: Disjoint::new(codes.bytes_mut(size)?),
        scales: Disjoint::new(scales.f32s_mut(r * k.div_ceil(TILE))?),
    };
    // Bands of rows that share scales stay in one task.
    let (bands, dtype) = (r.div_ceil(rows_per_tile), codes.dtype());
    for_rows(ctx.pool, bands, k * rows_per_tile, |from, to, _| {
        let (from, to) = (from * rows_per_tile, (to * rows_per_tile).min(r));
        match dtype {
            Dtype::E5m6 => job.rows::<E5m6>(ctx.isa, E5m6, from, to),
            _ => job.rows::<E4m3>(ctx.isa, E4m3, from, to),
        }
    });
    Ok(())
}

impl Job<'_> {
    fn rows<C: Stored>(&self, isa: Isa, code: C, from: usize, to: usize) {
        let (k, tiles) = (self.k, self.k.div_ceil(TILE));
        let x = self.x.range(from * k, (to - from) * k);
        // SAFETY: tasks have rows of their own.
        let (codes, scales) = unsafe {
            let codes = self.codes.part(C::bytes(from * k), C::bytes((to - from) * k));
            (codes, self.scales.part(from * tiles, (to - from) * tiles))
        };
        #[cfg(target_arch = "x86_64")]
        if C::IS_E4M3 && self.rows_per_tile == 1 && self.given.is_none() && isa <= Isa::Avx512Bf16 {
            // SAFETY: the processor has it.
            return with_floats!(x, |x| unsafe { wide::tiles(x, k, self.rule, codes, scales) });
        }
        with_floats!(x, |x| if self.rows_per_tile == 1 {
            by_isa!(isa, by_rows(code, x, k, self.given, self.rule, codes, scales));
        } else {
            let band = self.rows_per_tile;
            by_isa!(
                isa,
                by_bands(code, x, k, band, self.given, self.rule, codes, scales)
            );
        });
    }
}

isa_twins! {
    /// Rows of `k` numbers, a scale for each 128 of them.
    fn by_rows<C: Stored, T: Element>(
        _code: C, x: &[T], k: usize, given: Option<f32>, rule: Rule, codes: &mut [u8], scales: &mut [f32],
    ) {
        let tiles = k.div_ceil(TILE);
        for at in 0..scales.len() {
            let (start, end) = tile_bounds(at, tiles, k);
            let codes = &mut codes[C::bytes(start)..C::bytes(end)];
            scales[at] = one_tile::<T, C>(&x[start..end], given, rule, codes);
        }
    }
}

/// Where tile `at` of a matrix of `k` columns begins and ends: rows have `tiles` of them.
#[inline(always)]
fn tile_bounds(at: usize, tiles: usize, k: usize) -> (usize, usize) {
    let (row, column) = (at / tiles * k, at % tiles * TILE);
    (row + column, row + k.min(column + TILE))
}

/// Quantises neighbours that share a scale, and returns it. Whole tiles have a length that the compiler knows.
#[inline(always)]
fn one_tile<T: Element, C: Stored>(x: &[T], given: Option<f32>, rule: Rule, codes: &mut [u8]) -> f32 {
    if x.len() == TILE {
        tile_of::<T, C>(&x[..TILE], given, rule, &mut codes[..C::bytes(TILE)])
    } else {
        tile_of::<T, C>(x, given, rule, codes)
    }
}

#[inline(always)]
fn tile_of<T: Element, C: Stored>(x: &[T], given: Option<f32>, rule: Rule, codes: &mut [u8]) -> f32 {
    let amax = match given {
        Some(amax) => amax,
        None => f32::from_bits(greatest_bits(x, 0)),
    };
    let scale = rule.scale::<C>(amax);
    // Only a maximum from elsewhere can be exceeded.
    match given {
        Some(_) => quantize::<T, C, false>(x, scale, rule.power_of_two, codes),
        None => quantize::<T, C, true>(x, scale, rule.power_of_two, codes),
    }
    scale
}

isa_twins! {
    /// Bands of `band` rows, a scale for each 128 columns of them, written to each row.
    fn by_bands<C: Stored, T: Element>(
        _code: C, x: &[T], k: usize, band: usize, given: Option<f32>, rule: Rule, codes: &mut [u8], scales: &mut [f32],
    ) {
        let tiles = k.div_ceil(TILE);
        let rows = scales.len() / tiles.max(1);
        for first in (0..rows).step_by(band) {
            let last = (first + band).min(rows);
            for t in 0..tiles {
                let (start, end) = (t * TILE, ((t + 1) * TILE).min(k));
                let mut greatest = 0;
                for r in first..last {
                    greatest = greatest_bits(&x[r * k + start..r * k + end], greatest);
                }
                let amax = match given {
                    Some(amax) => amax,
                    None => f32::from_bits(greatest),
                };
                let scale = rule.scale::<C>(amax);
                for r in first..last {
                    let codes = &mut codes[C::bytes(r * k + start)..C::bytes(r * k + end)];
                    quantize::<T, C, false>(&x[r * k + start..r * k + end], scale, rule.power_of_two, codes);
                    scales[r * tiles + t] = scale;
                }
            }
        }
    }
}

/// codes, scales, y, count?; R, K
pub fn dequantize_tiles(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (codes, scales, y) = (a.codes("codes")?, a.f32s("scales")?, a.floats("y")?);
    let count = a.i32s_optional("count")?;
    let (r, k) = (a.usize("R")?, a.usize("K")?);
    a.end()?;
    check_width(&codes, k)?;
    require_apart(&y, [&codes])?;
    let r = count_rows(count, r)?;
    let size = elements(&[r, k])?;
    let tiles = k.div_ceil(TILE);
    let dtype = codes.dtype();
    let (codes, scales) = (codes.bytes(size)?, scales.f32s(r * tiles)?);
    let out = Out::new(y.slice_mut(size)?);
    for_rows(ctx.pool, r, k, |from, to, _| {
        let scales = &scales[from * tiles..to * tiles];
        // SAFETY: tasks have rows of their own.
        with_floats_mut!(unsafe { out.part(from * k, (to - from) * k) }, |y| match dtype {
            Dtype::E5m6 => {
                let codes = &codes[E5m6::bytes(from * k)..E5m6::bytes(to * k)];
                by_isa!(ctx.isa, widen_rows(E5m6, codes, k, scales, y));
            }
            _ => by_isa!(ctx.isa, widen_rows(E4m3, &codes[from * k..to * k], k, scales, y)),
        });
    });
    Ok(())
}

isa_twins! {
    fn widen_rows<C: Stored, Y: Element>(_code: C, codes: &[u8], k: usize, scales: &[f32], y: &mut [Y]) {
        let tiles = k.div_ceil(TILE);
        for at in 0..scales.len() {
            let (start, end) = tile_bounds(at, tiles, k);
            widen_tile::<C, Y>(&codes[C::bytes(start)..C::bytes(end)], scales[at], &mut y[start..end]);
        }
    }
}

/// Numbers of one tile: code times scale, rounded once to f32, then to Y.
#[inline(always)]
fn widen_tile<C: Stored, Y: Element>(codes: &[u8], scale: f32, y: &mut [Y]) {
    let mut values = [0f32; TILE];
    let values = &mut values[..y.len()];
    C::read(codes, values);
    for i in 0..values.len() {
        y[i] = Y::from_f32(values[i] * scale);
    }
}
