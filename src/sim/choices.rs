//! Where the decisions of a simulation come from: a seed, or bytes that a fuzzer chose.

pub(crate) struct Choices<'b> {
    source: Source<'b>,
}

enum Source<'b> {
    /// The state of a splitmix64 generator.
    Seed(u64),
    /// What is left of a fuzzer's bytes; when nothing is, every choice is the first.
    Bytes(&'b [u8]),
}

impl<'b> Choices<'b> {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self { source: Source::Seed(seed) }
    }

    pub(crate) fn of_bytes(bytes: &'b [u8]) -> Self {
        Self { source: Source::Bytes(bytes) }
    }

    pub(crate) fn are_over(&self) -> bool {
        matches!(self.source, Source::Bytes([]))
    }

    pub(crate) fn next(&mut self) -> u16 {
        match &mut self.source {
            Source::Seed(state) => {
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                (mixed >> 48) as u16
            }
            Source::Bytes(bytes) => {
                let taken = bytes.split_off(..bytes.len().min(2)).unwrap_or_default();
                taken.iter().fold(0, |sum, byte| sum << 8 | u16::from(*byte))
            }
        }
    }

    /// A number below `limit`, which is at most 2^16.
    pub(crate) fn below(&mut self, limit: u16) -> u16 {
        self.next() % limit.max(1)
    }

    pub(crate) fn byte(&mut self, limit: u8) -> u8 {
        u8::try_from(self.below(u16::from(limit))).unwrap_or_default()
    }

    /// An index into something of this length, which is at most 2^16.
    #[cfg(test)]
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::from(self.next()) % length.max(1)
    }

    /// True so many times of a hundred.
    pub(crate) fn percent(&mut self, chance: u16) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn one<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let index = self.below(u16::try_from(of.len()).unwrap_or(u16::MAX));
        of.get(usize::from(index)).copied()
    }

    pub(crate) fn some<T>(&mut self, most: u8, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..=self.byte(most)).map(|_| make(self)).collect()
    }
}
