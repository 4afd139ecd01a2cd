//! sample: one token from a row of logits, by temperature, top-k, top-p and one uniform number
//!
//! ```text
//! order      by logit, greatest first; of equal logits the lower id first
//! top-k      the first k of the order
//! top-p      of these the smallest prefix whose probability is at least p
//! token      the first id, in ascending order of the ids that are left, where the running sum exceeds u * sum
//! ```
//!
//! contract   tensor/ops/sample.ts
//! layout     logits [rows, V]; token one i32
//! dtype      logits f32 or bf16; probabilities f32, their sums f64; u has 53 bits
//! limits     temperature 0 takes the greatest logit; minus infinity is never drawn; -1 where the row holds a NaN,
//!            plus infinity, or nothing above minus infinity
//! tiling     one task
//! why so     ids are walked in their own order, so that without top-k and top-p nothing is sorted; with them only as
//!            long a prefix as the probability needs
//! versions   v1 (this file)

use super::filter::{cut_off, is_kept};
use crate::args::Args;
use crate::bf16::Element;
use crate::error::KernelError;
use crate::math::exp;
use crate::ops::Ctx;
use crate::pool::Disjoint;
use crate::random::block_words;
use crate::{by_isa, isa_twins, with_floats};

/// The random stream of sampling; the streams of initial weights count up from 0.
const STREAM: u64 = 1 << 52;

/// How a token is chosen.
#[derive(Clone, Copy)]
struct Settings {
    temperature: f64,
    top_k: usize,
    top_p: f64,
    seed: u64,
    counter: u64,
}

fn decode_settings(a: &mut Args) -> Result<Settings, KernelError> {
    let temperature = a.f64("temperature")?;
    let top_k = a.usize("topK")?;
    let top_p = a.f64("topP")?;
    let (seed, counter) = (a.usize("seed")? as u64, a.usize("counter")? as u64);
    if !(0.0..f64::INFINITY).contains(&temperature) {
        return Err(KernelError::new(
            "temperature",
            format!("{temperature} is not zero or more"),
        ));
    }
    if !(0.0..=1.0).contains(&top_p) {
        return Err(KernelError::new(
            "topP",
            format!("{top_p} does not lie between 0 and 1"),
        ));
    }
    Ok(Settings {
        temperature,
        top_k,
        top_p,
        seed,
        counter,
    })
}

pub fn sample(ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let logits = a.floats("logits")?;
    let token = a.i32s("token")?;
    let (v, row) = (a.usize("V")?, a.usize("row")?);
    let settings = decode_settings(a)?;
    a.end()?;
    let logits = logits.slice((row + 1) * v)?.range(row * v, v);
    let token = Disjoint::new(token.i32s_mut(1)?);
    ctx.pool.run(1, &|_, scratch| {
        let (row, rest) = scratch.f32(4 * v).split_at_mut(v);
        let (weights, keys) = rest.split_at_mut(v);
        with_floats!(logits, |logits| by_isa!(ctx.isa, widen(logits, row)));
        let greatest = by_isa!(ctx.isa, greatest_or_nan(row));
        let chosen = if !greatest.is_finite() {
            -1
        } else if settings.temperature == 0.0 {
            row.iter()
                .position(|logit| *logit == greatest)
                .map_or(-1, |id| id as i32)
        } else {
            by_isa!(
                ctx.isa,
                unnormalised(row, greatest, settings.temperature, weights)
            );
            keep_best(row, weights, keys, settings);
            draw(weights, uniform(settings.seed, settings.counter)) as i32
        };
        // SAFETY: there is one task.
        let token = unsafe { token.part(0, 1) };
        token[0] = chosen;
    });
    Ok(())
}

isa_twins! {
    fn widen<E: Element>(logits: &[E], row: &mut [f32]) {
        for (to, logit) in row.iter_mut().zip(logits) {
            // Plus zero makes of minus zero a zero: the two are one logit.
            *to = logit.to_f32() + 0.0;
        }
    }
}

isa_twins! {
    /// The greatest logit; NaN if there is one.
    fn greatest_or_nan(row: &[f32]) -> f32 {
        let mut greatest = f32::NEG_INFINITY;
        let mut holds_nan = false;
        for logit in row {
            greatest = if *logit > greatest { *logit } else { greatest };
            holds_nan |= logit.is_nan();
        }
        if holds_nan { f32::NAN } else { greatest }
    }
}

isa_twins! {
    fn unnormalised(row: &[f32], greatest: f32, temperature: f64, weights: &mut [f32]) {
        for (weight, logit) in weights.iter_mut().zip(row) {
            *weight = exp(((*logit - greatest) as f64 / temperature) as f32);
        }
    }
}

/// Sets the weights of all tokens to zero that top-k and top-p leave out.
fn keep_best(row: &[f32], weights: &mut [f32], keys: &mut [f32], settings: Settings) {
    let top_k = if settings.top_k == 0 {
        row.len()
    } else {
        settings.top_k.min(row.len())
    };
    if top_k == row.len() && settings.top_p >= 1.0 {
        return;
    }
    // SAFETY: any bits are valid for both. The room begins 8 V bytes behind a multiple of 64 and holds 2 V floats.
    let (_, keys, _) = unsafe { keys.align_to_mut::<u64>() };
    assert_eq!(keys.len(), row.len(), "one key per token");
    let cut = cut_off(row, weights, keys, top_k, settings.top_p);
    for (id, weight) in weights.iter_mut().enumerate() {
        if !is_kept(row[id], id, cut) {
            *weight = 0.0;
        }
    }
}

/// 53 random bits as a number from 0 to 1, 1 excluded.
fn uniform(seed: u64, counter: u64) -> f64 {
    let words = block_words(seed, STREAM, counter);
    let bits = (words[0] as u64 >> 5) << 26 | words[1] as u64 >> 6;
    bits as f64 / (1u64 << 53) as f64
}

fn draw(weights: &[f32], u: f64) -> usize {
    let sum = weights.iter().fold(0.0, |sum, weight| sum + *weight as f64);
    let threshold = u * sum;
    let mut running = 0.0;
    let mut last = 0;
    for (id, weight) in weights.iter().enumerate() {
        if *weight > 0.0 {
            running += *weight as f64;
            last = id;
            if running > threshold {
                break;
            }
        }
    }
    // The product may have been rounded up to the whole sum: then the last token it is.
    last
}
