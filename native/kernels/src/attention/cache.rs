//! cacheAppend: writes new tokens' latents and rope keys behind those of a cache.
//!
//! contract   src/tensor/ops/absorbedAttention.ts             (reference)
//! layout     latent [M, C] -> cacheLatent rows at..at + M · kRope [M, R] -> cacheRope rows at..at + M
//! dtype      each f32 or bf16, rounded to nearest even where the cache is narrower; rows before `at` stay

use crate::args::{Args, elements};
use crate::bf16::Element;
use crate::error::KernelError;
use crate::ops::Ctx;
use crate::{by_isa, isa_twins, with_floats, with_floats_mut};

isa_twins! {
    fn convert<T: Element, U: Element>(x: &[T], y: &mut [U]) {
        for i in 0..x.len() {
            y[i] = U::from_f32(x[i].to_f32());
        }
    }
}

/// The kernel behind `cacheAppend`.
pub fn cache_append(ctx: &Ctx, args: &mut Args) -> Result<(), KernelError> {
    let latent = args.floats("latent")?;
    let k_rope = args.floats("kRope")?;
    let cache_latent = args.floats("cacheLatent")?;
    let cache_rope = args.floats("cacheRope")?;
    let tokens = args.usize("M")?;
    let widths = [args.usize("C")?, args.usize("R")?];
    let at = args.usize("at")?;
    args.end()?;
    for (width, (fresh, cache)) in widths
        .into_iter()
        .zip([(latent, cache_latent), (k_rope, cache_rope)])
    {
        let fresh = fresh.slice(elements(&[tokens, width])?)?;
        let cache = cache.slice_mut(elements(&[at + tokens, width])?)?;
        with_floats!(fresh, |x| with_floats_mut!(cache, |y| {
            by_isa!(ctx.isa, convert(x, &mut y[at * width..]))
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Dtype::{Bf16, F32};
    use crate::attention::oracle::{Command, numbers};
    use crate::isa::Isa;

    #[test]
    fn new_rows_follow_the_old_ones_in_the_dtype_of_the_cache() {
        let (latent, k_rope) = (numbers(3 * 20, Bf16, 1), numbers(3 * 6, Bf16, 2));
        for (from, to) in [(F32, F32), (F32, Bf16), (Bf16, F32), (Bf16, Bf16)] {
            for isa in Isa::usable() {
                let mut command = Command::new();
                command.operand(&latent, from).operand(&k_rope, from);
                command
                    .output(7 * 20, to)
                    .output(7 * 6, to)
                    .params(&[3.0, 20.0, 6.0, 2.0]);
                let garbage = command.read(2)[0];
                command.run(cache_append, isa, 1).unwrap();
                for (operand, fresh, width) in [(2, &latent, 20), (3, &k_rope, 6)] {
                    let cache = command.read(operand);
                    assert_eq!(&cache[2 * width..5 * width], &fresh[..]);
                    let others = cache[..2 * width].iter().chain(&cache[5 * width..]);
                    assert!(
                        others.into_iter().all(|value| *value == garbage),
                        "{from:?} {to:?} {isa}"
                    );
                }
            }
        }
    }

    #[test]
    fn rows_beyond_the_cache_are_refused_by_name() {
        let mut command = Command::new();
        command.operand(&[1.0; 20], F32).operand(&[1.0; 8], F32);
        command
            .output(40, F32)
            .output(16, F32)
            .params(&[1.0, 20.0, 8.0, 900.0]);
        let refused = command.run(cache_append, Isa::detect(), 1).unwrap_err();
        assert_eq!(refused.param, Some("cacheLatent"));
    }
}
