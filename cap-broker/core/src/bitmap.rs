//! Allocator of dense numbers, singly or in contiguous runs.
//!
//! A bit per number, set while free, in words of 64; two summary bits per word
//! (some free, all free). Singles come from partly used words, so that whole
//! words stay together for runs. Finding a single looks at one summary word
//! per 4096 numbers; finding a run longer than a word, at one summary bit per
//! word.
//!
//! # Invariants
//! - **B1** `some` and `all` agree with `words`.
//! - **B2** `free` is the number of set bits; bits past `capacity` are clear.

use alloc::vec;
use alloc::vec::Vec;

const WORD_BITS: u32 = u64::BITS;

/// Numbers `0..capacity`, each free or taken.
#[derive(Clone, Debug)]
pub struct RunBitmap {
    words: Vec<u64>,
    some: Vec<u64>,
    all: Vec<u64>,
    capacity: u32,
    free: u32,
}

impl RunBitmap {
    /// Numbers `0..capacity`, all free.
    pub fn new(capacity: u32) -> Self {
        let words = capacity.div_ceil(WORD_BITS);
        let summary = words.div_ceil(WORD_BITS) as usize;
        let mut bitmap = Self {
            words: vec![0; words as usize],
            some: vec![0; summary],
            all: vec![0; summary],
            capacity,
            free: 0,
        };
        bitmap.set_free(0, capacity);
        bitmap
    }

    /// How many numbers there are.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How many are free.
    pub const fn free_count(&self) -> u32 {
        self.free
    }

    /// How many are taken.
    pub const fn used_count(&self) -> u32 {
        self.capacity - self.free
    }

    /// True when `number` exists and is free.
    pub fn is_free(&self, number: u32) -> bool {
        number < self.capacity && self.words[index(number)] & bit(number) != 0
    }

    /// Takes one number.
    pub fn allocate(&mut self) -> Option<u32> {
        let word = self.partial_word().or_else(|| first_set(&self.some))?;
        let number = word * WORD_BITS + self.words[word as usize].trailing_zeros();
        self.set_used(number, 1);
        Some(number)
    }

    /// Takes `count` consecutive numbers and returns the first; `None` for a
    /// count of zero.
    pub fn allocate_run(&mut self, count: u32) -> Option<u32> {
        let first = match count {
            0 => return None,
            1 => return self.allocate(),
            2..=WORD_BITS => self.run_within_word(count)?,
            _ => self.run_of_words(count)?,
        };
        self.set_used(first, count);
        Some(first)
    }

    /// Gives `count` numbers from `first` back. False, and nothing happens,
    /// when one of them does not exist or is free already.
    #[must_use]
    pub fn free_run(&mut self, first: u32, count: u32) -> bool {
        let Some(end) = first.checked_add(count).filter(|end| *end <= self.capacity) else {
            return false;
        };
        if pieces(first, end).any(|(word, mask)| self.words[word] & mask != 0) {
            return false;
        }
        self.set_free(first, count);
        true
    }

    /// Takes `count` numbers from `first` if all are free.
    #[must_use]
    pub fn take_run(&mut self, first: u32, count: u32) -> bool {
        let Some(end) = first.checked_add(count).filter(|end| *end <= self.capacity) else {
            return false;
        };
        if pieces(first, end).any(|(word, mask)| self.words[word] & mask != mask) {
            return false;
        }
        self.set_used(first, count);
        true
    }

    /// Checks B1 and B2.
    ///
    /// # Panics
    /// When one of them is broken, which is a defect of this module.
    pub fn check(&self) {
        let mut free = 0;
        for (at, word) in self.words.iter().enumerate() {
            free += word.count_ones();
            let summary = bit(at as u32);
            let some = self.some[at / 64] & summary != 0;
            let all = self.all[at / 64] & summary != 0;
            assert_eq!(some, *word != 0, "B1 broken: some, word {at}");
            assert_eq!(all, *word == u64::MAX, "B1 broken: all, word {at}");
        }
        assert_eq!(free, self.free, "B2 broken: count");
        if let Some(last) = self.words.last() {
            let tail = self.capacity % WORD_BITS;
            assert!(
                tail == 0 || last >> tail == 0,
                "B2 broken: bits past the end"
            );
        }
    }

    fn partial_word(&self) -> Option<u32> {
        let partial = self
            .some
            .iter()
            .zip(&self.all)
            .map(|(some, all)| some & !all);
        find_set(partial)
    }

    /// A run inside one word: the first partly used word that has one, else
    /// the first word with room.
    fn run_within_word(&self, count: u32) -> Option<u32> {
        let fits = |partial: bool| {
            let words = self.some.iter().zip(&self.all).enumerate();
            for (at, (some, all)) in words {
                let mut candidates = if partial { some & !all } else { *all };
                while candidates != 0 {
                    let word = at as u32 * WORD_BITS + candidates.trailing_zeros();
                    if let Some(offset) = run_in(self.words[word as usize], count) {
                        return Some(word * WORD_BITS + offset);
                    }
                    candidates &= candidates - 1;
                }
            }
            None
        };
        fits(true)
            .or_else(|| fits(false))
            .or_else(|| self.run_across_words(count))
    }

    /// A run that starts anywhere and crosses a word boundary: the last resort.
    fn run_across_words(&self, count: u32) -> Option<u32> {
        let mut reaching = 0;
        for (at, word) in self.words.iter().enumerate() {
            let start = at as u32 * WORD_BITS - reaching;
            if reaching + word.trailing_ones() >= count {
                return Some(start);
            }
            reaching = if *word == u64::MAX {
                reaching + WORD_BITS
            } else {
                word.leading_ones()
            };
        }
        None
    }

    /// A run longer than a word: wholly free words, then as much as is needed
    /// of one more.
    fn run_of_words(&self, count: u32) -> Option<u32> {
        let (full, rest) = (count / WORD_BITS, count % WORD_BITS);
        let mut length = 0;
        for at in 0..self.words.len() as u32 {
            if length == full && rest == 0 {
                return Some((at - full) * WORD_BITS);
            }
            let word = self.words[at as usize];
            if length >= full && word.trailing_ones() >= rest {
                return Some((at - full) * WORD_BITS);
            }
            length = if word == u64::MAX { length + 1 } else { 0 };
        }
        let words = self.words.len() as u32;
        let tail = (length >= full && rest == 0).then(|| (words - full) * WORD_BITS);
        tail.or_else(|| self.run_across_words(count))
    }

    fn set_free(&mut self, first: u32, count: u32) {
        for (word, mask) in pieces(first, first + count) {
            self.words[word] |= mask;
            self.summarise(word);
        }
        self.free += count;
    }

    fn set_used(&mut self, first: u32, count: u32) {
        for (word, mask) in pieces(first, first + count) {
            self.words[word] &= !mask;
            self.summarise(word);
        }
        self.free -= count;
    }

    fn summarise(&mut self, word: usize) {
        let (summary, mask) = (word / 64, bit(word as u32));
        let value = self.words[word];
        set(&mut self.some[summary], mask, value != 0);
        set(&mut self.all[summary], mask, value == u64::MAX);
    }
}

const fn index(number: u32) -> usize {
    (number / WORD_BITS) as usize
}

const fn bit(number: u32) -> u64 {
    1 << (number % WORD_BITS)
}

const fn set(word: &mut u64, mask: u64, value: bool) {
    if value {
        *word |= mask;
    } else {
        *word &= !mask;
    }
}

/// The words that `first..end` touches, each with the mask of its bits.
fn pieces(first: u32, end: u32) -> impl Iterator<Item = (usize, u64)> {
    let last = end.div_ceil(WORD_BITS);
    (first / WORD_BITS..last.max(first / WORD_BITS)).filter_map(move |word| {
        let from = first.max(word * WORD_BITS) - word * WORD_BITS;
        let to = end
            .min((word + 1) * WORD_BITS)
            .saturating_sub(word * WORD_BITS);
        let width = to.checked_sub(from).filter(|width| *width > 0)?;
        Some((word as usize, u64::MAX >> (WORD_BITS - width) << from))
    })
}

fn first_set(summary: &[u64]) -> Option<u32> {
    find_set(summary.iter().copied())
}

fn find_set(mut words: impl Iterator<Item = u64>) -> Option<u32> {
    let mut at = 0;
    words.find_map(|word| {
        let found = (word != 0).then(|| at * WORD_BITS + word.trailing_zeros());
        at += 1;
        found
    })
}

/// Offset of the first run of `count` set bits in `word`.
fn run_in(word: u64, count: u32) -> Option<u32> {
    let mut starts = word;
    let mut covered = 1;
    while covered < count {
        let step = covered.min(count - covered);
        starts &= starts >> step;
        covered += step;
    }
    (starts != 0).then(|| starts.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_at_word_boundaries() {
        for capacity in [63, 64, 65, 127, 128, 129, 4096, 4097] {
            let mut bitmap = RunBitmap::new(capacity);
            bitmap.check();
            assert_eq!(bitmap.allocate_run(capacity), Some(0), "all of {capacity}");
            bitmap.check();
            assert_eq!(bitmap.allocate(), None);
            assert!(bitmap.free_run(0, capacity));
            bitmap.check();
            assert_eq!(bitmap.allocate_run(capacity + 1), None);
        }
    }

    #[test]
    fn a_double_free_is_noticed() {
        let mut bitmap = RunBitmap::new(100);
        let first = bitmap.allocate_run(10).unwrap();
        assert!(bitmap.free_run(first, 5));
        assert!(
            !bitmap.free_run(first + 4, 2),
            "one of the two is free already"
        );
        assert!(bitmap.free_run(first + 5, 5));
        assert!(!bitmap.free_run(95, 10), "past the end");
        bitmap.check();
        assert_eq!(bitmap.used_count(), 0);
    }

    #[test]
    fn a_run_across_two_words_is_found_last() {
        let mut bitmap = RunBitmap::new(128);
        assert!(bitmap.take_run(0, 60));
        assert!(bitmap.take_run(70, 58));
        assert_eq!(bitmap.allocate_run(10), Some(60));
        assert_eq!(bitmap.free_count(), 0);
        let mut bitmap = RunBitmap::new(256);
        assert!(bitmap.take_run(0, 32));
        assert!(bitmap.take_run(200, 56));
        assert_eq!(
            bitmap.allocate_run(168),
            Some(32),
            "longer than any whole words"
        );
    }

    #[test]
    fn runs_of_bits() {
        assert_eq!(run_in(0b1110_0110, 3), Some(5));
        assert_eq!(run_in(0b1110_0110, 2), Some(1));
        assert_eq!(run_in(0b1110_0110, 4), None);
        assert_eq!(run_in(u64::MAX, 64), Some(0));
        assert_eq!(run_in(u64::MAX >> 1, 64), None);
    }
}
