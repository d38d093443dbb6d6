//! Whether deflating some bytes can make them smaller. What is compressed or encrypted already (archives, packages,
//! pictures) is a good part of most images, and a deflater spends as long on it as on anything else, to no end.

/// Bytes that are judged together.
pub const PIECE: usize = 16 * 1024;

/// How far back a repetition may lie, as in deflate.
const WINDOW: usize = 32 * 1024;

/// A piece with less than 7.95 bits in a byte has something to gain from a Huffman code.
const BITS: f64 = 7.95;

/// Repetitions seen at sampled places that make a piece worth a try.
const REPEATS: usize = PIECE / 512;

const SLOTS: usize = 1 << 14;

/// Which bytes are remembered; all of the piece are looked up, so that no long repetition is missed.
const STEP: usize = 4;

/// True when the bytes from `start` on (a piece, or what is left of one) would stay as long as they are. What comes before
/// them is what a repetition may refer to.
pub fn is_dense(bytes: &[u8], start: usize) -> bool {
    let piece = &bytes[start..];
    piece.len() >= PIECE / 2 && is_flat(piece) && !repeats(bytes, start)
}

/// Every byte as often as every other: by the chance that two of them are the same (Rényi's entropy of order 2, which is
/// never more than Shannon's).
fn is_flat(piece: &[u8]) -> bool {
    let mut counts = [0u32; 256];
    let length = piece.len() as f64;
    // Pairs only become more: most text is told by its first half.
    piece.chunks(piece.len().div_ceil(4)).all(|part| {
        for byte in part {
            counts[usize::from(*byte)] += 1;
        }
        let pairs: u64 = counts.iter().map(|&count| u64::from(count).pow(2)).sum();
        // What chance alone would add to the pairs in so few bytes is not the source's.
        (pairs as f64 - length) / (length * length) <= (-BITS).exp2()
    })
}

fn repeats(bytes: &[u8], start: usize) -> bool {
    let mut seen = vec![0u32; SLOTS];
    let window = start.saturating_sub(WINDOW).next_multiple_of(STEP);
    for at in (window..start).step_by(STEP) {
        let Some((slot, mark)) = mark_at(bytes, at) else { return false };
        seen[slot] = mark;
    }
    let mut found = 0;
    for at in start..bytes.len() {
        let Some((slot, mark)) = mark_at(bytes, at) else { return false };
        if seen[slot] == mark {
            found += 1;
            if found > REPEATS {
                return true;
            }
        }
        if at % STEP == 0 {
            seen[slot] = mark;
        }
    }
    false
}

/// Eight bytes as a slot and what tells them from others there; none where there are fewer.
fn mark_at(bytes: &[u8], at: usize) -> Option<(usize, u32)> {
    let eight = bytes.get(at..at + 8)?.try_into().ok()?;
    // Fibonacci hashing: the high bits choose the slot, others tell what is in it.
    let hash = u64::from_le_bytes(eight).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Some(((hash >> 50) as usize, (hash >> 16) as u32 | 1))
}

/// Bytes without any order (xorshift64*).
#[cfg(test)]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_dense_and_nothing_else() {
        let text = b"It was a bright cold day in April, and the clocks were striking. ".repeat(300);
        let base64 = noise(1, PIECE).iter().map(|byte| b'A' + byte % 64).collect::<Vec<u8>>();
        let cases: [(&str, &[u8], bool); 5] = [
            ("noise", &noise(1, PIECE), true),
            ("text", &text[..PIECE], false),
            ("zeros", &[0; PIECE], false),
            ("sixty-four values", &base64, false),
            ("too little to judge", &noise(1, 100), false),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(is_dense(bytes, 0), expected, "{name}");
        }
    }

    #[test]
    fn noise_that_was_there_before_is_worth_deflating() {
        let mut twice = noise(1, PIECE);
        twice.extend(noise(1, PIECE));
        assert!(!is_dense(&twice, PIECE));
        let mut shifted = noise(1, PIECE + 3);
        shifted.extend(noise(1, PIECE));
        assert!(!is_dense(&shifted, PIECE + 3), "wherever it begins");
        let mut partly = noise(1, PIECE);
        partly.extend(&noise(1, PIECE)[..1000]);
        partly.extend(noise(2, PIECE - 1000));
        assert!(!is_dense(&partly, PIECE), "if only a part of it");
        let mut far = noise(1, PIECE);
        far.extend(noise(2, WINDOW));
        far.extend(noise(1, PIECE));
        assert!(is_dense(&far, PIECE + WINDOW), "deflate would not find it either");
    }

    #[test]
    fn the_deflater_agrees() {
        // What is called dense, the deflater makes no smaller by more than one part in a hundred.
        use std::io::Write;
        for seed in 1..20 {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            let words: Vec<u8> =
                noise(seed, 200_000).iter().map(|byte| b"etaoin shrdlu"[usize::from(byte % 13)]).collect();
            packed.write_all(&words).unwrap();
            let packed = packed.finish().unwrap();
            let piece = &packed[100..100 + PIECE];
            if is_dense(piece, 0) {
                let mut again = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
                again.write_all(piece).unwrap();
                assert!(again.finish().unwrap().len() * 100 > PIECE * 99, "seed {seed}");
            }
        }
    }
}
