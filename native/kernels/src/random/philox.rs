//! Philox4x32-10: a bijection on 128-bit counters, chosen by a 64-bit key. Random access: number `i` of a
//! stream needs no number before it, so any split over threads or machines gives the same stream.
//!
//! Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), section 3.3.

const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// Added to the key between rounds: the golden ratio and sqrt(3) - 1, as 32-bit fractions.
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const ROUNDS: usize = 10;

/// Four random words for one counter.
#[inline(always)]
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let low = counter[0] as u64 * MULTIPLIERS[0] as u64;
        let high = counter[2] as u64 * MULTIPLIERS[1] as u64;
        counter = [
            (high >> 32) as u32 ^ counter[1] ^ key[0],
            high as u32,
            (low >> 32) as u32 ^ counter[3] ^ key[1],
            low as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// Four random words of block `block` in stream `stream` of seed `seed`.
#[inline(always)]
pub fn block_words(seed: u64, stream: u64, block: u64) -> [u32; 4] {
    let counter = [
        block as u32,
        (block >> 32) as u32,
        (seed >> 32) as u32,
        (stream >> 32) as u32,
    ];
    philox(counter, [seed as u32, stream as u32])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same file that the TypeScript tests read: the known answers of the authors' own library.
    const VECTORS: &str = include_str!("../../../../test/golden/philox/philox4x32-10.txt");

    #[test]
    fn it_gives_the_known_answers_of_its_authors() {
        let mut checked = 0;
        for line in VECTORS.lines() {
            let words: Vec<u32> = line
                .split_whitespace()
                .map(|word| u32::from_str_radix(word, 16).unwrap())
                .collect();
            let [c0, c1, c2, c3, k0, k1, r0, r1, r2, r3] = words[..] else {
                panic!("not ten words: {line}");
            };
            assert_eq!(philox([c0, c1, c2, c3], [k0, k1]), [r0, r1, r2, r3]);
            checked += 1;
        }
        assert_eq!(checked, 3);
    }

    #[test]
    fn every_bit_of_seed_stream_and_block_matters() {
        let base = block_words(1, 2, 3);
        for bit in 0..53 {
            assert_ne!(block_words(1 ^ (1 << bit), 2, 3), base, "seed bit {bit}");
            assert_ne!(block_words(1, 2 ^ (1 << bit), 3), base, "stream bit {bit}");
            assert_ne!(block_words(1, 2, 3 ^ (1 << bit)), base, "block bit {bit}");
        }
    }
}
