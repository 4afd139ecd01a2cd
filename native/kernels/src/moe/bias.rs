//! updateRouterBias: bias += gamma * sign(mean(load) - load)
//!
//! contract   tensor/ops/routerBias.ts
//! layout     bias [E] f32 · load [E] i32
//! why so     mean - load is compared as whole numbers, total against E * load: an even load is exactly even
//! versions   v1 (this file)

use std::cmp::Ordering;

use crate::args::Args;
use crate::error::KernelError;
use crate::ops::Ctx;

/// The op: bias, load; E, gamma.
pub fn op(_ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (bias, load) = (a.f32s("bias")?, a.i32s("load")?);
    let (experts, gamma) = (a.usize("E")?, a.f32("gamma")?);
    a.end()?;
    let (bias, load) = (bias.f32s_mut(experts)?, load.i32s(experts)?);
    let total: i64 = load.iter().map(|rows| *rows as i64).sum();
    for (bias, rows) in bias.iter_mut().zip(load) {
        match total.cmp(&(experts as i64 * *rows as i64)) {
            Ordering::Greater => *bias += gamma,
            Ordering::Less => *bias -= gamma,
            Ordering::Equal => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Arena, same_on_all_paths};
    use super::*;

    fn moved(bias: &[f32], load: &[i32], gamma: f64) -> Vec<f32> {
        same_on_all_paths(|ctx| {
            let mut arena = Arena::new();
            let operands = [arena.put(bias), arena.put_i32(load)];
            arena
                .run(ctx, op, &operands, &[bias.len() as f64, gamma])
                .unwrap();
            arena.f32s(operands[0])
        })
    }

    #[test]
    fn busy_experts_go_down_and_idle_ones_up_by_gamma() {
        assert_eq!(
            moved(&[0.0; 4], &[10, 2, 4, 8], 0.001),
            [-0.001, 0.001, 0.001, -0.001]
        );
    }

    #[test]
    fn an_even_load_moves_nothing_also_where_the_mean_is_no_binary_fraction() {
        assert_eq!(moved(&[0.5; 3], &[1, 2, 3], 0.25), [0.75, 0.5, 0.25]);
        assert_eq!(moved(&[1.0; 7], &[i32::MAX; 7], 0.25), [1.0; 7]);
        assert_eq!(moved(&[0.1, 0.2], &[3, 0], 0.0), [0.1, 0.2]);
    }
}
