//! Deadlines in order: an indexed binary heap over a fixed set of timers.
//!
//! Each thing that can wait for time owns one timer number for its whole life,
//! so arming and disarming are `O(log n)` and take no storage. `n` is a few
//! dozen in practice and at most [`Deadlines::new`]'s `timers`.

use alloc::vec;
use alloc::vec::Vec;

/// Number of a timer, chosen by its owner.
pub(crate) type Timer = u16;

const IDLE: u16 = u16::MAX;

/// # Invariants
/// - **D1** `heap` is ordered: no entry is due before its parent.
/// - **D2** `position[t]` is the index of `t` in `heap`, or `IDLE`.
#[derive(Clone, Debug)]
pub(crate) struct Deadlines {
    heap: Vec<(u64, Timer)>,
    position: Vec<u16>,
}

impl Deadlines {
    /// `timers` idle timers, numbered from zero.
    pub(crate) fn new(timers: usize) -> Self {
        assert!(timers < usize::from(IDLE), "a timer number must fit");
        Self {
            heap: Vec::with_capacity(timers),
            position: vec![IDLE; timers],
        }
    }

    /// Number of timers that are set.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.first().map(|&(due, _)| due)
    }

    /// Sets `timer` to go off at `due`, replacing an earlier setting.
    pub(crate) fn arm(&mut self, timer: Timer, due: u64) {
        self.disarm(timer);
        let index = self.heap.len();
        self.heap.push((due, timer));
        self.position[usize::from(timer)] = index as u16;
        self.sift_up(index);
    }

    /// Makes `timer` idle; nothing happens if it is.
    pub(crate) fn disarm(&mut self, timer: Timer) {
        let index = self.position[usize::from(timer)];
        if index == IDLE {
            return;
        }
        self.remove(usize::from(index));
    }

    /// Takes one timer that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<Timer> {
        let &(due, timer) = self.heap.first()?;
        if due > now {
            return None;
        }
        self.remove(0);
        Some(timer)
    }

    fn remove(&mut self, index: usize) {
        let last = self.heap.len() - 1;
        self.swap(index, last);
        if let Some((_, timer)) = self.heap.pop() {
            self.position[usize::from(timer)] = IDLE;
        }
        if index < last {
            self.sift_up(index);
            self.sift_down(index);
        }
    }

    fn sift_up(&mut self, mut index: usize) {
        while index > 0 {
            let parent = (index - 1) / 2;
            if self.heap[parent].0 <= self.heap[index].0 {
                return;
            }
            self.swap(parent, index);
            index = parent;
        }
    }

    fn sift_down(&mut self, mut index: usize) {
        loop {
            let left = 2 * index + 1;
            let Some(&(left_due, _)) = self.heap.get(left) else {
                return;
            };
            let mut child = left;
            if let Some(&(right_due, _)) = self.heap.get(left + 1)
                && right_due < left_due
            {
                child = left + 1;
            }
            if self.heap[index].0 <= self.heap[child].0 {
                return;
            }
            self.swap(index, child);
            index = child;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for index in [a, b] {
            let (_, timer) = self.heap[index];
            self.position[usize::from(timer)] = index as u16;
        }
    }

    /// Whether `timer` is set.
    pub(crate) fn is_armed(&self, timer: Timer) -> bool {
        self.position[usize::from(timer)] != IDLE
    }

    /// Asserts D1 and D2.
    pub(crate) fn check(&self) {
        for (index, &(due, timer)) in self.heap.iter().enumerate() {
            let parent = index.saturating_sub(1) / 2;
            assert!(self.heap[parent].0 <= due, "D1 broken at {index}");
            assert_eq!(
                usize::from(self.position[usize::from(timer)]),
                index,
                "D2 broken for timer {timer}"
            );
        }
        let armed = self.position.iter().filter(|&&p| p != IDLE).count();
        assert_eq!(armed, self.heap.len(), "D2: armed timers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the obvious model: a sorted list of (due, timer).
    #[test]
    fn agrees_with_a_sorted_list() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let mut heap = Deadlines::new(40);
        let mut model: Vec<(u64, Timer)> = Vec::new();
        for _ in 0..20_000 {
            let timer = (random() % 40) as Timer;
            match random() % 4 {
                0 | 1 => {
                    let due = random() % 1000;
                    heap.arm(timer, due);
                    model.retain(|&(_, t)| t != timer);
                    model.push((due, timer));
                }
                2 => {
                    heap.disarm(timer);
                    model.retain(|&(_, t)| t != timer);
                }
                _ => {
                    let now = random() % 500;
                    let least = model.iter().map(|&(due, _)| due).min();
                    assert_eq!(heap.next(), least);
                    match heap.pop_due(now) {
                        None => assert!(least.is_none_or(|due| due > now)),
                        Some(popped) => {
                            let at = model.iter().position(|&(_, t)| t == popped);
                            let (due, _) = model.remove(at.expect("popped timer was armed"));
                            assert_eq!(Some(due), least, "earliest first");
                            assert!(due <= now);
                        }
                    }
                }
            }
            heap.check();
        }
    }
}
