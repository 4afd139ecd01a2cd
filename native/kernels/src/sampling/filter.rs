//! Which tokens top-k and top-p keep. A token's key orders it: greater logits first, of equal ones the lower id.

/// Keys ascend as logits descend. Logits are not NaN, and zero is never negative.
#[inline(always)]
fn key(logit: f32, id: usize) -> u64 {
    let bits = logit.to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    (!ascending as u64) << 32 | id as u64
}

/// True for tokens up to the last one that is kept.
#[inline(always)]
pub fn is_kept(logit: f32, id: usize, cut: u64) -> bool {
    key(logit, id) <= cut
}

/// The key of the last token that is kept: of the `top_k` first tokens (1 at the least) the smallest prefix whose
/// weight is at least `top_p` of theirs. `keys` is room for one key per token.
pub fn cut_off(row: &[f32], weights: &[f32], keys: &mut [u64], top_k: usize, top_p: f64) -> u64 {
    for (id, logit) in row.iter().enumerate() {
        keys[id] = key(*logit, id);
    }
    let weight_of = |key: u64| weights[key as u32 as usize] as f64;
    let total = if top_k < keys.len() {
        keys.select_nth_unstable(top_k - 1);
        if top_p >= 1.0 {
            return keys[top_k - 1];
        }
        keys[..top_k].sort_unstable();
        keys[..top_k].iter().fold(0.0, |sum, key| sum + weight_of(*key))
    } else {
        weights.iter().fold(0.0, |sum, weight| sum + *weight as f64)
    };
    let keys = &mut keys[..top_k];
    let mut running = 0.0;
    let mut sorted = 0;
    while sorted < keys.len() {
        // Most of the probability lies in few tokens: sort no more of them than it needs.
        let next = (sorted * 8).max(64).min(keys.len());
        if next < keys.len() {
            keys[sorted..].select_nth_unstable(next - sorted);
        }
        keys[sorted..next].sort_unstable();
        for key in &keys[sorted..next] {
            running += weight_of(*key);
            if running >= top_p * total {
                return *key;
            }
        }
        sorted = next;
    }
    keys[keys.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::test_arena::noise;

    /// Ids that are kept, by sorting everything.
    fn kept_by_sorting(row: &[f32], weights: &[f32], top_k: usize, top_p: f64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
        order.truncate(top_k);
        let total: f64 = order.iter().map(|id| weights[*id] as f64).sum();
        let mut running = 0.0;
        let mut kept = Vec::new();
        for id in order {
            running += weights[id] as f64;
            kept.push(id);
            if running >= top_p * total {
                break;
            }
        }
        kept.sort_unstable();
        kept
    }

    #[test]
    fn the_kept_tokens_are_those_of_a_full_sort() {
        for v in [1, 5, 64, 65, 1000, 5000] {
            // Whole numbers, so that there are ties to break.
            let row: Vec<f32> = noise(v, 4).iter().map(|x| (x * 9.0).round() + 0.0).collect();
            let weights: Vec<f32> = row.iter().map(|x| (x - 9.0).exp2()).collect();
            for top_k in [1, 3, 64, 200, v] {
                for top_p in [0.0, 0.1, 0.5, 0.9, 0.999, 1.0] {
                    let top_k = top_k.min(v);
                    let mut keys = vec![0; v];
                    let cut = cut_off(&row, &weights, &mut keys, top_k, top_p);
                    let kept: Vec<usize> = (0..v).filter(|id| is_kept(row[*id], *id, cut)).collect();
                    assert_eq!(
                        kept,
                        kept_by_sorting(&row, &weights, top_k, top_p),
                        "{v} {top_k} {top_p}"
                    );
                }
            }
        }
    }

    #[test]
    fn keys_order_logits_from_the_greatest_to_minus_infinity() {
        let row = [
            f32::MAX,
            2.0,
            1.0e-30,
            0.0,
            -1.0e-30,
            -2.0,
            f32::MIN,
            f32::NEG_INFINITY,
        ];
        for pair in row.windows(2) {
            assert!(key(pair[0], 9) < key(pair[1], 3));
        }
        assert!(key(1.0, 3) < key(1.0, 4));
    }
}
