//! Incompressible bytes that make a snapshot bigger, for measurements.

/// A generator of pseudo-random bytes (xorshift64*), which no compressor makes smaller.
#[derive(Debug, Clone)]
pub(super) struct Filler(u64);

impl Filler {
    pub(super) const fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// Overwrites `bytes`.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filler_looks_random() {
        let mut bytes = alloc::vec![0; 100_003];
        Filler::new().fill(&mut bytes);
        let mut counts = [0u32; 256];
        bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        let expected = bytes.len() as f64 / 256.0;
        let chi_squared: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
        // 255 degrees of freedom: between these bounds in all but one case in a million.
        assert!((160.0..380.0).contains(&chi_squared), "{chi_squared}");
        let mut words: alloc::vec::Vec<_> = bytes.chunks_exact(8).collect();
        words.sort_unstable();
        assert!(words.windows(2).all(|pair| pair[0] != pair[1]), "it repeats itself");
    }
}
