//! The best few of many scores, for 64 tokens side by side: one token per lane, no branch on any score.
//! Of equal scores the lowest index wins.

/// Tokens side by side. With 16 the compiler unrolls each loop into scalars before it thinks of vectors.
pub const SIDE: usize = 64;

/// One score of each token.
pub type Scores = [f32; SIDE];
/// One word of 32 marks for each token.
pub type Marks = [u32; SIDE];

/// What stands where nobody may be chosen; `rank` gives nothing as low.
pub const CLOSED: f32 = f32::NEG_INFINITY;

/// NaN ranks above everything: chosen, it reaches the loss and is seen there. Minus infinity stays above `CLOSED`.
#[inline(always)]
fn rank(score: f32) -> f32 {
    let bounded = if score < f32::MIN { f32::MIN } else { score };
    if score.is_nan() { f32::INFINITY } else { bounded }
}

/// Lays up to `SIDE` rows of affinities plus bias side by side. Lanes without a row keep what they had.
#[inline(always)]
pub fn lay_out(rows: &[f32], bias: &[f32], scores: &mut [Scores]) {
    // A few experts at a time: one lane's column over all of them would not stay in the first cache.
    const STRIP: usize = 32;
    let experts = scores.len();
    for (strip, scores) in scores.chunks_mut(STRIP).enumerate() {
        let part = strip * STRIP..strip * STRIP + scores.len();
        let bias = &bias[part.clone()];
        for (l, row) in rows.chunks_exact(experts).enumerate() {
            for ((s, b), lanes) in row[part.clone()].iter().zip(bias).zip(scores.iter_mut()) {
                lanes[l] = rank(*s + *b);
            }
        }
    }
}

/// Marks the `best.len()` best of each token: bit `i % 32` of `marks[i / 32]`. So many must not be `CLOSED`.
#[inline(always)]
pub fn mark_best(scores: &[Scores], best: &mut [Scores], marks: &mut [Marks]) {
    // The best scores in order. A new one goes in by two comparisons a place, each place on its own.
    best.fill([CLOSED; SIDE]);
    for score in scores {
        for k in (1..best.len()).rev() {
            let (above, here) = best.split_at_mut(k);
            raise(&mut here[0], &above[k - 1], score);
        }
        raise(&mut best[0], score, score);
    }
    let last = &best[best.len() - 1];
    // Of those that equal the last one, the first few are chosen: as many as the greater ones leave room for.
    let mut room = [best.len() as i32; SIDE];
    for score in scores {
        for l in 0..SIDE {
            room[l] -= (score[l] > last[l]) as i32;
        }
    }
    for (marks, scores) in marks.iter_mut().zip(scores.chunks(32)) {
        *marks = [0; SIDE];
        for (bit, score) in scores.iter().enumerate() {
            for l in 0..SIDE {
                let ties = score[l] == last[l];
                let chosen = (score[l] > last[l]) | (ties & (room[l] > 0));
                room[l] -= ties as i32;
                marks[l] |= (chosen as u32) << bit;
            }
        }
    }
}

/// here = max(here, min(above, score))
#[inline(always)]
fn raise(here: &mut Scores, above: &Scores, score: &Scores) {
    for l in 0..SIDE {
        let lesser = if score[l] < above[l] { score[l] } else { above[l] };
        here[l] = if lesser > here[l] { lesser } else { here[l] };
    }
}

/// Words of marks for so many scores.
pub fn mark_words(scores: usize) -> usize {
    scores.div_ceil(32)
}

/// Writes the marked indices of lane `l`, ascending; returns how many there are.
#[inline(always)]
pub fn marked(marks: &[Marks], l: usize, ids: &mut [i32]) -> usize {
    let mut at = 0;
    for (word, row) in marks.iter().enumerate() {
        let mut left = row[l];
        while left != 0 {
            ids[at] = (word * 32) as i32 + left.trailing_zeros() as i32;
            left &= left - 1;
            at += 1;
        }
    }
    at
}

/// Closes all but the `open` best of `groups.len()` groups of neighbours. A group is as good as its two best.
#[inline(always)]
pub fn close_groups(scores: &mut [Scores], groups: &mut [Scores], open: usize) {
    let size = scores.len() / groups.len();
    for (group, members) in groups.iter_mut().zip(scores.chunks_exact(size)) {
        *group = two_best(members);
    }
    for (g, members) in scores.chunks_exact_mut(size).enumerate() {
        let mut better = [0i32; SIDE];
        for (h, other) in groups.iter().enumerate() {
            for l in 0..SIDE {
                let wins = other[l] > groups[g][l] || (h < g && other[l] == groups[g][l]);
                better[l] += wins as i32;
            }
        }
        for score in members {
            for l in 0..SIDE {
                score[l] = if better[l] < open as i32 { score[l] } else { CLOSED };
            }
        }
    }
}

/// The sum of the two greatest scores of each token.
#[inline(always)]
fn two_best(members: &[Scores]) -> Scores {
    let (mut first, mut second) = ([CLOSED; SIDE], [CLOSED; SIDE]);
    for score in members {
        for l in 0..SIDE {
            let passes = score[l] > first[l];
            let lesser = if passes { first[l] } else { score[l] };
            first[l] = if passes { score[l] } else { first[l] };
            second[l] = if lesser > second[l] { lesser } else { second[l] };
        }
    }
    for l in 0..SIDE {
        first[l] = rank(first[l] + second[l]);
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lane l holds the scores turned by l, so that every lane has its own answer.
    fn turned(scores: &[f32]) -> Vec<Scores> {
        (0..scores.len())
            .map(|i| std::array::from_fn(|l| scores[(i + l) % scores.len()]))
            .collect()
    }

    fn best(scores: &[Scores], count: usize, l: usize) -> Vec<i32> {
        let mut work = vec![[7.0; SIDE]; count];
        let mut marks = vec![[77; SIDE]; mark_words(scores.len())];
        mark_best(scores, &mut work, &mut marks);
        let mut ids = vec![-1; count];
        assert_eq!(marked(&marks, l, &mut ids), count);
        ids
    }

    #[test]
    fn each_lane_finds_its_own_best_and_the_lower_index_wins_a_tie() {
        let scores = [1.0, 5.0, 3.0, 5.0, 2.0, 3.0, 9.0];
        assert_eq!(best(&turned(&scores), 4, 0), [1, 2, 3, 6]);
        assert_eq!(best(&turned(&scores), 4, 1), [0, 1, 2, 5]);
        for l in 0..SIDE {
            let of = |i: usize| scores[(i + l) % 7];
            let beaten = |i: usize| {
                (0..7)
                    .filter(|j| of(*j) > of(i) || (of(*j) == of(i) && *j < i))
                    .count()
            };
            let expected: Vec<i32> = (0..7).filter(|i| beaten(*i) < 4).map(|i| i as i32).collect();
            assert_eq!(best(&turned(&scores), 4, l), expected);
        }
        assert_eq!(best(&turned(&[0.0; 70]), 40, 3), (0..40).collect::<Vec<i32>>());
    }

    #[test]
    fn ranked_scores_pass_what_is_closed_and_nan_passes_all() {
        assert_eq!(rank(f32::NAN), f32::INFINITY);
        assert_eq!(rank(-3.0), -3.0);
        assert!(rank(f32::NEG_INFINITY) > CLOSED);
        let scores = [CLOSED, rank(f32::NEG_INFINITY), CLOSED, rank(f32::NAN)].map(|s| [s; SIDE]);
        assert_eq!(best(&scores, 2, 5), [1, 3]);
    }

    #[test]
    fn only_the_best_groups_stay_open() {
        let mut scores: Vec<Scores> = [1.0, 2.0, 9.0, -9.0, 2.0, 1.0, 4.0, 4.0]
            .map(|s| [s; SIDE])
            .to_vec();
        close_groups(&mut scores, &mut [[0.0; SIDE]; 4], 2);
        let left: Vec<f32> = scores.iter().map(|row| row[8]).collect();
        assert_eq!(left, [1.0, 2.0, CLOSED, CLOSED, CLOSED, CLOSED, 4.0, 4.0]);
    }
}
