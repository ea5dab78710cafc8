//! Bitmap and untyped memory against naive models, under random requests.

mod common;

use cap_broker_core::bitmap::RunBitmap;
use cap_broker_core::operation::{BootUntyped, Object, ObjectKind, Slot};
use cap_broker_core::sim::{Refusal, SimKernel};
use cap_broker_core::slots::SlotAllocator;
use cap_broker_core::untyped::{Block, UntypedAllocator};
use cap_broker_core::{BrokerError, ObjectSizes};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum BitmapStep {
    Take(u32),
    Give(usize),
}

fn bitmap_steps() -> impl Strategy<Value = (u32, Vec<BitmapStep>)> {
    let count = prop_oneof![4 => Just(1_u32), 3 => 2_u32..=64, 2 => 65_u32..=300, 1 => Just(0_u32)];
    let step = prop_oneof![
        count.prop_map(BitmapStep::Take),
        any::<usize>().prop_map(BitmapStep::Give)
    ];
    (1_u32..700, vec(step, 1..120))
}

/// First run of `count` clear places in the naive model, if any.
fn naive_run(taken: &[bool], count: u32) -> Option<usize> {
    let count = count as usize;
    (count > 0).then(|| {
        taken
            .windows(count)
            .position(|run| run.iter().all(|taken| !taken))
    })?
}

#[test]
fn bitmap_agrees_with_a_vector_of_bools() {
    common::check("bitmap", 1500, &bitmap_steps(), |(capacity, steps)| {
        let mut bitmap = RunBitmap::new(capacity);
        let mut taken = vec![false; capacity as usize];
        let mut runs = Vec::new();
        for step in steps {
            match step {
                BitmapStep::Take(count) => {
                    let got = bitmap.allocate_run(count);
                    prop_assert_eq!(got.is_some(), naive_run(&taken, count).is_some());
                    if let Some(first) = got {
                        for place in &mut taken[first as usize..(first + count) as usize] {
                            prop_assert!(!*place, "handed out twice");
                            *place = true;
                        }
                        runs.push((first, count));
                    }
                }
                BitmapStep::Give(which) if !runs.is_empty() => {
                    let (first, count) = runs.swap_remove(which % runs.len());
                    prop_assert!(bitmap.free_run(first, count));
                    prop_assert!(!bitmap.free_run(first, count), "double free goes unnoticed");
                    taken[first as usize..(first + count) as usize].fill(false);
                }
                BitmapStep::Give(_) => {}
            }
            bitmap.check();
            let free = taken.iter().filter(|taken| !**taken).count();
            prop_assert_eq!(bitmap.free_count() as usize, free);
        }
        Ok(())
    });
}

#[derive(Clone, Debug)]
enum Step {
    Allocate {
        size_bits: u8,
        refuse_after: Option<u64>,
    },
    Device {
        page: u64,
    },
    Free(usize),
    Merge,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![3 => 4_u8..12, 4 => Just(12_u8), 2 => 13_u8..18, 1 => 18_u8..22];
    let refuse = prop::option::weighted(0.1, 0_u64..6);
    let step = prop_oneof![
        10 => (size, refuse).prop_map(|(size_bits, refuse_after)| Step::Allocate { size_bits, refuse_after }),
        2 => (0_u64..300).prop_map(|page| Step::Device { page }),
        9 => any::<usize>().prop_map(Step::Free),
        1 => Just(Step::Merge),
    ];
    vec(step, 1..150)
}

const DEVICE_BASE: u64 = 0xfec0_0000;
const ROOT_SPACE: Slot = Slot(3);

/// A boot list like a machine's: RAM in powers of two, one device region.
fn boot() -> Vec<BootUntyped> {
    let ram = [
        (0x10_1000, 12),
        (0x10_2000, 13),
        (0x11_0000, 16),
        (0x20_0000, 20),
        (0x40_0000, 21),
    ];
    let mut boot: Vec<_> = ram
        .iter()
        .enumerate()
        .map(|(index, (paddr, size_bits))| BootUntyped {
            slot: Slot(10 + index as u32),
            paddr: *paddr,
            size_bits: *size_bits,
            is_device: false,
        })
        .collect();
    let slot = Slot(10 + boot.len() as u32);
    boot.push(BootUntyped {
        slot,
        paddr: DEVICE_BASE,
        size_bits: 20,
        is_device: true,
    });
    boot
}

struct Held {
    block: Block,
    slot: Slot,
    first: u64,
    end: u64,
}

/// True when some boot untyped has an aligned free block of that size.
fn naive_fits(boot: &[BootUntyped], held: &[Held], size_bits: u8) -> bool {
    let size = 1_u64 << size_bits;
    let ram = boot
        .iter()
        .filter(|untyped| !untyped.is_device && untyped.size_bits >= size_bits);
    ram.into_iter().any(|untyped| {
        let end = untyped.paddr + (1 << untyped.size_bits);
        let mut starts = (untyped.paddr..end).step_by(size as usize);
        starts.any(|at| {
            held.iter()
                .all(|held| held.end <= at || held.first >= at + size)
        })
    })
}

struct Machine {
    boot: Vec<BootUntyped>,
    kernel: SimKernel,
    slots: SlotAllocator,
    untyped: UntypedAllocator,
    held: Vec<Held>,
}

impl Machine {
    fn new(slot_count: u32, block_capacity: usize) -> Self {
        let boot = boot();
        Self {
            kernel: SimKernel::new(&boot, ROOT_SPACE),
            slots: SlotAllocator::new(Slot(100), Slot(100 + slot_count)),
            untyped: UntypedAllocator::new(&boot, block_capacity),
            held: Vec::new(),
            boot,
        }
    }

    fn keep(&mut self, block: Block, kind: ObjectKind) {
        let size_bits = self.untyped.size_bits(&block);
        let first = self.untyped.paddr(&block);
        let slot = self.slots.allocate().expect("a slot for the object");
        let object = Object { kind, size_bits };
        self.untyped
            .retype(&mut self.kernel, &block, object, slot, 1)
            .expect("retype");
        self.held.push(Held {
            block,
            slot,
            first,
            end: first + (1 << size_bits),
        });
    }

    fn release(&mut self, which: usize) {
        let held = self.held.swap_remove(which % self.held.len());
        self.untyped
            .revoke(&mut self.kernel, &held.block)
            .expect("revoke");
        self.slots.free(held.slot);
        self.untyped
            .free(&mut self.kernel, &mut self.slots, held.block);
    }

    fn check(&self) -> Result<(), TestCaseError> {
        self.untyped.check();
        self.slots.check();
        for (at, held) in self.held.iter().enumerate() {
            let overlap = self.held[at + 1..]
                .iter()
                .any(|o| o.first < held.end && held.first < o.end);
            prop_assert!(!overlap, "blocks overlap at {:#x}", held.first);
        }
        let ram = self.held.iter().filter(|held| held.first < DEVICE_BASE);
        let bytes: u64 = ram.map(|held| held.end - held.first).sum();
        prop_assert_eq!(self.untyped.usage().allocated(), bytes, "bytes accounted");
        let used = self.untyped.slots_held() + self.held.len() as u32;
        prop_assert_eq!(self.slots.used(), used, "slots accounted");
        // The kernel's own slots: boot untypeds and the root's top table.
        let kernel = self.kernel.used_slots() - self.boot.len() - 1;
        prop_assert_eq!(kernel as u32, used, "the kernel agrees about slots");
        // A refused retype may have zeroed, for all the books know.
        let zeroed = self.kernel.counts().zeroed_bytes;
        prop_assert!(self.untyped.usage().zeroed >= zeroed, "zeroing accounted");
        Ok(())
    }
}

#[test]
fn untyped_memory_agrees_with_a_list_of_intervals() {
    common::check("untyped", 400, &steps(), |steps| {
        let mut machine = Machine::new(4000, 4000);
        for step in steps {
            run(&mut machine, step)?;
            machine.check()?;
        }
        while !machine.held.is_empty() {
            machine.release(0);
        }
        machine
            .untyped
            .merge_all(&mut machine.kernel, &mut machine.slots)
            .expect("merge");
        machine.check()?;
        prop_assert_eq!(machine.slots.used(), 0, "a slot leaked");
        let usage = machine.untyped.usage();
        prop_assert_eq!(usage.free, usage.total, "memory leaked");
        Ok(())
    });
}

fn run(machine: &mut Machine, step: Step) -> Result<(), TestCaseError> {
    let Machine {
        kernel,
        slots,
        untyped,
        ..
    } = machine;
    match step {
        Step::Allocate {
            size_bits,
            refuse_after,
        } => {
            if let Some(skip) = refuse_after {
                kernel.refuse_after(skip, Refusal::Constructive);
            }
            let zeroed = kernel.counts().zeroed_bytes;
            let got = untyped.allocate(kernel, slots, size_bits);
            let refused = refuse_after.is_some() && !kernel.clear_refusal();
            let zeroed = kernel.counts().zeroed_bytes - zeroed;
            match got {
                Ok(block) => {
                    prop_assert_eq!(untyped.paddr(&block) % (1 << size_bits), 0, "alignment");
                    prop_assert!(zeroed <= 1 << 21, "zeroed more than one block");
                    machine.keep(block, ObjectKind::Untyped);
                }
                Err(BrokerError::Kernel(_)) => prop_assert!(refused),
                Err(error) => {
                    prop_assert_eq!(error, BrokerError::OutOfMemory { size_bits });
                    let fits = naive_fits(&machine.boot, &machine.held, size_bits);
                    prop_assert!(!fits, "refused although a block of 2^{} is free", size_bits);
                }
            }
        }
        Step::Device { page } => {
            let paddr = DEVICE_BASE + page * 4096;
            let taken = machine.held.iter().any(|held| held.first == paddr);
            match untyped.allocate_device(kernel, slots, paddr, 12) {
                Ok(block) => {
                    prop_assert!(!taken && page < 256);
                    prop_assert_eq!(untyped.paddr(&block), paddr);
                    machine.keep(block, ObjectKind::Frame);
                }
                Err(BrokerError::DeviceBusy { .. }) => prop_assert!(taken),
                Err(BrokerError::NoSuchDevice { .. }) => prop_assert!(page >= 256),
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
        Step::Free(which) if !machine.held.is_empty() => machine.release(which),
        Step::Free(_) => {}
        Step::Merge => untyped.merge_all(kernel, slots).expect("merge"),
    }
    Ok(())
}

#[test]
fn scarce_slots_and_records_are_reported_and_nothing_is_lost() {
    common::check(
        "scarce",
        300,
        &(0_u32..40, 6_usize..40, steps()),
        |(slots, records, steps)| {
            let mut machine = Machine::new(slots, records);
            for step in steps {
                let Step::Allocate { size_bits, .. } = step else {
                    continue;
                };
                let Machine {
                    kernel,
                    slots,
                    untyped,
                    ..
                } = &mut machine;
                match untyped.allocate(kernel, slots, size_bits) {
                    Ok(block) if slots.available() == 0 => untyped.free(kernel, slots, block),
                    Ok(block) => machine.keep(block, ObjectKind::Untyped),
                    Err(
                        BrokerError::OutOfSlots { count: 2 }
                        | BrokerError::OutOfRecords(_)
                        | BrokerError::OutOfMemory { .. },
                    ) => {}
                    Err(error) => prop_assert!(false, "{}", error),
                }
                machine.check()?;
            }
            Ok(())
        },
    );
}

#[test]
fn boot_memory_is_split_smallest_first_and_zeroed_once() {
    let mut machine = Machine::new(4000, 4000);
    let Machine {
        kernel,
        slots,
        untyped,
        ..
    } = &mut machine;
    let tcb = ObjectSizes::SEL4_5_X86_64.tcb;
    let block = untyped.allocate(kernel, slots, tcb).unwrap();
    assert_eq!(
        untyped.paddr(&block),
        0x10_1000,
        "the 4 KiB untyped is large enough"
    );
    assert_eq!(
        kernel.counts().zeroed_bytes,
        4096,
        "all of it is zeroed, nothing else"
    );
    let second = untyped.allocate(kernel, slots, tcb).unwrap();
    assert_eq!(untyped.paddr(&second), 0x10_1800);
    assert_eq!(
        kernel.counts().zeroed_bytes,
        4096,
        "the second half is clean"
    );
    machine.keep(block, ObjectKind::Tcb);
    machine.keep(second, ObjectKind::Tcb);
    assert_eq!(machine.kernel.counts().zeroed_bytes, 4096);
    assert_eq!(machine.untyped.usage().zeroed, 4096, "and the books know");
    machine.check().unwrap();
}

#[test]
fn a_device_page_high_in_its_region_is_reached_by_splitting() {
    let mut machine = Machine::new(4000, 4000);
    let Machine {
        kernel,
        slots,
        untyped,
        ..
    } = &mut machine;
    let high = untyped
        .allocate_device(kernel, slots, DEVICE_BASE + 0x8_1000, 12)
        .unwrap();
    let low = untyped
        .allocate_device(kernel, slots, DEVICE_BASE, 12)
        .unwrap();
    assert_eq!(untyped.paddr(&high), DEVICE_BASE + 0x8_1000);
    assert_eq!(untyped.paddr(&low), DEVICE_BASE, "a lower page afterwards");
    assert_eq!(
        untyped.device_at(DEVICE_BASE + 0x8_1000),
        Some((DEVICE_BASE, 20))
    );
    assert_eq!(untyped.device_at(0x10_1000), None, "RAM is no device");
    let ram = untyped.allocate_device(kernel, slots, 0x10_1000, 12);
    assert_eq!(ram, Err(BrokerError::NoSuchDevice { paddr: 0x10_1000 }));
    let whole = untyped.allocate_device(kernel, slots, DEVICE_BASE, 20);
    assert_eq!(whole, Err(BrokerError::DeviceBusy { paddr: DEVICE_BASE }));
    machine.keep(high, ObjectKind::Frame);
    machine.keep(low, ObjectKind::Frame);
    machine.check().unwrap();
    machine.release(0);
    machine.release(0);
    assert_eq!(machine.slots.used(), 0, "device memory merges by itself");
}

#[test]
fn a_large_used_block_is_spared_when_small_ones_can_be_merged() {
    let mut machine = Machine::new(4000, 4000);
    // Fill everything but the 1 MiB and 2 MiB untypeds.
    for size_bits in [12, 13, 16] {
        let Machine {
            kernel,
            slots,
            untyped,
            ..
        } = &mut machine;
        let block = untyped.allocate(kernel, slots, size_bits).unwrap();
        machine.keep(block, ObjectKind::Untyped);
    }
    // Cut the 1 MiB one into pages and give them back: 256 KiB of it can only
    // be had by merging.
    let first = machine.held.len();
    for _ in 0..256 {
        let Machine {
            kernel,
            slots,
            untyped,
            ..
        } = &mut machine;
        let block = untyped.allocate(kernel, slots, 12).unwrap();
        machine.keep(block, ObjectKind::Untyped);
    }
    while machine.held.len() > first {
        machine.release(first);
    }
    let before = machine.kernel.counts().zeroed_bytes;
    let Machine {
        kernel,
        slots,
        untyped,
        ..
    } = &mut machine;
    let block = untyped.allocate(kernel, slots, 18).unwrap();
    assert!(
        (0x20_0000..0x30_0000).contains(&untyped.paddr(&block)),
        "not of the 2 MiB untyped"
    );
    machine.keep(block, ObjectKind::Untyped);
    let zeroed = machine.kernel.counts().zeroed_bytes - before;
    assert!(zeroed <= 1 << 18, "{zeroed} bytes zeroed");
}
