//! The best few of many scores. Between equal scores the one offered first wins, so that offering in
//! ascending order of index makes the lowest index win.

/// The greatest scores seen so far, best first, with their indices.
pub struct Best<'a> {
    scores: &'a mut [f32],
    ids: &'a mut [i32],
    len: usize,
}

impl<'a> Best<'a> {
    /// Keeps as many as `ids` holds; `scores` is working space of the same length.
    pub fn new(scores: &'a mut [f32], ids: &'a mut [i32]) -> Best<'a> {
        let capacity = ids.len();
        Best {
            scores: &mut scores[..capacity],
            ids,
            len: 0,
        }
    }

    /// Offers the scores of `first..first + scores.len()`. No score is NaN: see `rank`.
    #[inline]
    pub fn offer(&mut self, first: usize, scores: &[f32]) {
        let room = (self.ids.len() - self.len).min(scores.len());
        for (i, score) in scores[..room].iter().enumerate() {
            self.len += 1;
            self.insert(*score, first + i);
        }
        if self.len == 0 {
            return;
        }
        for (i, score) in scores.iter().enumerate().skip(room) {
            if *score > self.scores[self.len - 1] {
                self.insert(*score, first + i);
            }
        }
    }

    /// Puts a score in its place; the last one falls out.
    #[inline]
    fn insert(&mut self, score: f32, id: usize) {
        let mut at = self.len - 1;
        while at > 0 && score > self.scores[at - 1] {
            self.scores[at] = self.scores[at - 1];
            self.ids[at] = self.ids[at - 1];
            at -= 1;
        }
        self.scores[at] = score;
        self.ids[at] = id as i32;
    }
}

/// NaN ranks above everything: chosen, it reaches the loss and is seen there.
#[inline(always)]
pub fn rank(score: f32) -> f32 {
    if score.is_nan() { f32::INFINITY } else { score }
}

/// The sum of the two greatest, ranked.
#[inline]
pub fn two_best(scores: &[f32]) -> f32 {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for score in scores {
        let lesser = if *score > first { first } else { *score };
        second = if lesser > second { lesser } else { second };
        first = if *score > first { *score } else { first };
    }
    rank(first + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(scores: &[f32], count: usize) -> Vec<i32> {
        let (mut work, mut ids) = (vec![0.0; count], vec![-1; count]);
        let mut best = Best::new(&mut work, &mut ids);
        for (i, part) in scores.chunks(3).enumerate() {
            best.offer(i * 3, part);
        }
        ids
    }

    #[test]
    fn the_best_come_out_in_order_and_the_lower_index_wins_a_tie() {
        assert_eq!(best(&[1.0, 5.0, 3.0, 5.0, 2.0, 3.0, 9.0], 4), [6, 1, 3, 2]);
        assert_eq!(best(&[0.0; 8], 3), [0, 1, 2]);
        assert_eq!(best(&[f32::NEG_INFINITY; 4], 4), [0, 1, 2, 3]);
        assert_eq!(best(&[f32::NEG_INFINITY, 1.0, f32::INFINITY], 1), [2]);
    }

    #[test]
    fn nan_ranks_highest_and_does_not_hide_the_sum_of_two() {
        assert_eq!(rank(f32::NAN), f32::INFINITY);
        assert_eq!(rank(-3.0), -3.0);
        assert_eq!(two_best(&[1.0, -2.0, 4.0, 3.0]), 7.0);
        assert_eq!(two_best(&[4.0, 4.0]), 8.0);
        assert_eq!(two_best(&[f32::INFINITY, f32::NEG_INFINITY]), f32::INFINITY);
    }
}
