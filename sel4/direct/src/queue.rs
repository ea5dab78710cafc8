//! A transmit queue in memory that two domains share.
//!
//! The client writes descriptors and then the head; the server reads the head
//! once, keeps its own tail, and copies each descriptor once before it looks at
//! it: whatever the client writes meanwhile changes nothing that was checked.

/// Descriptors of a queue; indices count on and wrap.
pub const ENTRIES: u32 = 16;
/// Bytes of the buffer area that descriptors point into.
pub const BUFFER_BYTES: u32 = 4096 * 100;

const _: () = assert!(ENTRIES.is_power_of_two());

/// A piece of the buffer area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// First byte.
    pub offset: u32,
    /// Number of bytes, at least one.
    pub length: u32,
}

/// What the client wrote is no queue; nothing of it is taken any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The head claims more descriptors than there is room for.
    Head,
    /// A descriptor reaches out of the buffer area, or is empty.
    Descriptor,
}

/// Where the server is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The next descriptor to take.
    pub tail: u32,
    /// Bytes taken so far.
    pub bytes: u64,
}

impl Descriptor {
    /// Whether it lies in the buffer area.
    #[must_use]
    pub const fn is_inside(&self) -> bool {
        let fits = self.length <= BUFFER_BYTES && self.offset <= BUFFER_BYTES - self.length;
        self.length > 0 && fits
    }
}

/// Takes everything between the server's tail and `head`. `read` copies the
/// descriptor in a slot; `take` gets each that was checked.
///
/// # Errors
/// [`Malformed`]; what was taken before stays taken, and `progress` says so.
pub fn process_tx_queue(
    progress: &mut Progress,
    head: u32,
    mut read: impl FnMut(u32) -> Descriptor,
    mut take: impl FnMut(Descriptor),
) -> Result<u32, Malformed> {
    let waiting = head.wrapping_sub(progress.tail);
    if waiting > ENTRIES {
        return Err(Malformed::Head);
    }
    for _ in 0..waiting {
        let descriptor = read(progress.tail % ENTRIES);
        if !descriptor.is_inside() {
            return Err(Malformed::Descriptor);
        }
        take(descriptor);
        progress.tail = progress.tail.wrapping_add(1);
        progress.bytes += u64::from(descriptor.length);
    }
    Ok(waiting)
}

/// For whatever stands in the page: no slot or byte outside is touched, and
/// never more than a queue is taken. `any` is any number, each time. Returns the
/// outcome.
#[cfg(any(kani, test))]
fn nothing_outside_is_touched(any: &dyn Fn() -> u32) -> Result<u32, Malformed> {
    let mut progress = Progress {
        tail: any(),
        bytes: 0,
    };
    let before = progress.tail;
    let mut bytes = 0;
    let taken = process_tx_queue(
        &mut progress,
        any(),
        |slot| {
            assert!(slot < ENTRIES);
            Descriptor {
                offset: any(),
                length: any(),
            }
        },
        |taken| {
            let end = u64::from(taken.offset) + u64::from(taken.length);
            assert!(taken.length > 0 && end <= u64::from(BUFFER_BYTES));
            bytes += u64::from(taken.length);
        },
    );
    let moved = progress.tail.wrapping_sub(before);
    assert!(moved <= ENTRIES);
    assert!(taken.is_err() || taken == Ok(moved));
    assert_eq!(progress.bytes, bytes);
    taken
}

/// For all numbers there are.
#[cfg(kani)]
#[kani::proof]
#[kani::unwind(18)]
fn nothing_outside_is_touched_by_any() {
    let _ = nothing_outside_is_touched(&|| kani::any());
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    /// The harness above with numbers drawn at random, most of them small or
    /// close to a bound, so that every outcome is met.
    #[test]
    fn nothing_outside_is_touched_by_random_numbers() {
        let state = Cell::new(0x9e37_79b9_7f4a_7c15_u64);
        let any = || {
            let mut x = state.get();
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            state.set(x);
            let number = (x >> 32) as u32;
            match x % 32 {
                0 => number,
                1 => (number % 3).wrapping_add(BUFFER_BYTES - 1),
                _ => number % (2 * ENTRIES),
            }
        };
        let (mut full, mut outside, mut claimed) = (0, 0, 0);
        for _ in 0..100_000 {
            match nothing_outside_is_touched(&any) {
                Ok(count) => full += u32::from(count == ENTRIES),
                Err(Malformed::Descriptor) => outside += 1,
                Err(Malformed::Head) => claimed += 1,
            }
        }
        assert!(full > 100 && outside > 1000 && claimed > 1000);
    }
}
