//! dispatchPlan: a row for each (token, slot), sorted by expert, by token within one; expertLoad: rows per expert
//!
//! contract   tensor/ops/dispatch.ts
//! layout     expertIds, slotRow [T, K] · offsets [E + 1] · rows [T * K] · load [E], all i32
//! limits     an id outside 0..E is refused before anything is written
//! tiling     one task: a counting sort of T * K numbers, about 1 ns each for both passes (2048 x 4: 10 us)
//! versions   v1 (this file)

use crate::args::Args;
use crate::error::KernelError;
use crate::ops::Ctx;

/// The op: expertIds, offsets, rows, slotRow; T, K, E.
pub fn plan(_ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (ids, offsets) = (a.i32s("expertIds")?, a.i32s("offsets")?);
    let (rows, slot_row) = (a.i32s("rows")?, a.i32s("slotRow")?);
    let (tokens, k, experts) = (a.usize("T")?, a.usize("K")?, a.usize("E")?);
    a.end()?;
    let ids = ids.i32s(tokens * k)?;
    let offsets = offsets.i32s_mut(experts + 1)?;
    let rows = rows.i32s_mut(tokens * k)?;
    let slot_row = slot_row.i32s_mut(tokens * k)?;
    let mut next = starts(ids, experts)?;
    offsets.copy_from_slice(&next);
    for t in 0..tokens {
        for slot in t * k..(t + 1) * k {
            let place = &mut next[ids[slot] as usize];
            rows[*place as usize] = t as i32;
            slot_row[slot] = *place;
            *place += 1;
        }
    }
    Ok(())
}

/// The first row of each expert, and the number of rows at the end.
fn starts(ids: &[i32], experts: usize) -> Result<Vec<i32>, KernelError> {
    let mut starts = vec![0i32; experts + 1];
    for id in ids {
        // A negative id becomes a huge one.
        match starts.get_mut((*id as u32 as usize).saturating_add(1)) {
            Some(count) => *count += 1,
            None => {
                let message = format!("{id} is no expert of {experts}");
                return Err(KernelError::new("expertIds", message));
            }
        }
    }
    for e in 0..experts {
        starts[e + 1] += starts[e];
    }
    Ok(starts)
}

/// The op: offsets, load; E.
pub fn load(_ctx: &Ctx, a: &mut Args) -> Result<(), KernelError> {
    let (offsets, load) = (a.i32s("offsets")?, a.i32s("load")?);
    let experts = a.usize("E")?;
    a.end()?;
    let (offsets, load) = (offsets.i32s(experts + 1)?, load.i32s_mut(experts)?);
    for (load, bounds) in load.iter_mut().zip(offsets.windows(2)) {
        *load += bounds[1] - bounds[0];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Arena, Random, same_on_all_paths};
    use super::*;

    fn plan_of(ids: &[i32], k: usize, e: usize) -> (Vec<i32>, Vec<i32>, Vec<i32>) {
        same_on_all_paths(|ctx| {
            let mut arena = Arena::new();
            let ids_at = arena.put_i32(ids);
            let outs = [
                arena.garbage_i32(e + 1),
                arena.garbage_i32(ids.len()),
                arena.garbage_i32(ids.len()),
            ];
            let numbers = [(ids.len() / k) as f64, k as f64, e as f64];
            arena
                .run(ctx, plan, &[ids_at, outs[0], outs[1], outs[2]], &numbers)
                .unwrap();
            (arena.i32s(outs[0]), arena.i32s(outs[1]), arena.i32s(outs[2]))
        })
    }

    #[test]
    fn rows_are_sorted_by_expert_then_token_and_slots_know_their_row() {
        let mut random = Random::new(1);
        for (tokens, k, e) in [(0, 2, 4), (1, 1, 1), (7, 2, 3), (500, 4, 16), (50, 8, 300)] {
            let ids: Vec<i32> = (0..tokens * k).map(|_| random.below(e) as i32).collect();
            let (offsets, rows, slot_row) = plan_of(&ids, k, e);
            let mut sorted: Vec<usize> = (0..ids.len()).collect();
            sorted.sort_by_key(|slot| (ids[*slot], *slot));
            for (row, slot) in sorted.iter().enumerate() {
                assert_eq!(rows[row] as usize, slot / k);
                assert_eq!(slot_row[*slot] as usize, row);
                let expert = ids[*slot] as usize;
                assert!((offsets[expert]..offsets[expert + 1]).contains(&(row as i32)));
            }
            assert_eq!((offsets[0], offsets[e]), (0, ids.len() as i32));
        }
    }

    #[test]
    fn an_id_that_is_no_expert_is_refused() {
        for bad in [-1, 4, i32::MIN, i32::MAX] {
            let mut arena = Arena::new();
            let operands = [
                arena.put_i32(&[0, bad]),
                arena.garbage_i32(5),
                arena.garbage_i32(2),
                arena.garbage_i32(2),
            ];
            let error =
                same_on_all_paths(|ctx| arena.run(ctx, plan, &operands, &[1.0, 2.0, 4.0]).unwrap_err());
            assert_eq!(error.param, Some("expertIds"));
            assert_eq!(error.message, format!("{bad} is no expert of 4"));
        }
    }

    #[test]
    fn loads_add_up() {
        let load = same_on_all_paths(|ctx| {
            let mut arena = Arena::new();
            let operands = [arena.put_i32(&[0, 2, 2, 7]), arena.put_i32(&[1, 2, 3])];
            arena.run(ctx, super::load, &operands, &[3.0]).unwrap();
            arena.i32s(operands[1])
        });
        assert_eq!(load, [3, 2, 8]);
    }
}
