//! Variables whose values are written into the file when a system is packed.

#![allow(non_upper_case_globals, reason = "the symbols' names are Microkit's")]

use core::cell::UnsafeCell;
use core::ptr::NonNull;

/// A variable that something outside the language sets.
#[repr(transparent)]
pub struct Var<T>(UnsafeCell<T>);

// SAFETY: it is only read once the program runs.
unsafe impl<T: Sync> Sync for Var<T> {}

impl<T: Copy> Var<T> {
    /// With the value it has where nobody sets it.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Its value.
    #[inline]
    pub fn get(&self) -> T {
        // SAFETY: the pointer is of an initialised `T` that nobody writes while
        // the program runs. Volatile: what the compiler sees is not the value.
        unsafe { self.0.get().read_volatile() }
    }
}

/// The domain's name, padded with zeroes.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static microkit_name: Var<[u8; 64]> = Var::new([0; 64]);

/// Whether the domain is passive.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static microkit_passive: Var<bool> = Var::new(false);

/// Its interrupts.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static microkit_irqs: Var<u64> = Var::new(0);

/// The channels it may notify.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static microkit_notifications: Var<u64> = Var::new(0);

/// The channels it may call.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static microkit_pps: Var<u64> = Var::new(0);

/// Its ranges of I/O ports.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static microkit_ioports: Var<u64> = Var::new(0);

/// The numbers that can signal it, where badges are packed; else zero.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static microkit_incoming: Var<u64> = Var::new(0);

/// Address of the IPC buffer.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static microkit_ipc_buffer: Var<u64> = Var::new(0x7fff_ffff_f000);

/// What the runtime itself needs.
pub struct Symbols;

impl Symbols {
    /// The domain's interrupts.
    pub fn irqs() -> u64 {
        microkit_irqs.get()
    }

    /// See `microkit_incoming`.
    pub fn incoming() -> u64 {
        microkit_incoming.get()
    }

    /// Address of the IPC buffer.
    pub fn ipc_buffer() -> u64 {
        microkit_ipc_buffer.get()
    }
}

/// The domain's name in the description.
pub fn pd_name(name: &mut [u8; 64]) -> &str {
    *name = microkit_name.get();
    let end = name
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(name.len());
    core::str::from_utf8(&name[..end]).unwrap_or_default()
}

/// The value of a variable that the system description sets: declares the
/// symbol and reads it.
#[macro_export]
macro_rules! var {
    ($symbol:ident: $ty:ty = $default:expr) => {{
        #[allow(
            non_upper_case_globals,
            reason = "the symbol's name is the description's"
        )]
        #[unsafe(no_mangle)]
        #[unsafe(link_section = ".data")]
        static $symbol: $crate::Var<$ty> = $crate::Var::new($default);
        $symbol.get()
    }};
}

/// The memory region whose address a `setvar_vaddr` puts into the symbol, as
/// `NonNull` of a slice of `n` bytes.
///
/// # Panics
/// Where the description does not set it.
#[macro_export]
macro_rules! memory_region_symbol {
    ($symbol:ident: *mut [u8], n = $n:expr) => {
        $crate::_private::region($crate::var!($symbol: usize = 0), $n)
    };
}

/// The region of `length` bytes at `address`.
pub fn region(address: usize, length: usize) -> NonNull<[u8]> {
    let start = core::ptr::with_exposed_provenance_mut::<u8>(address);
    let start = NonNull::new(start).expect("the system description sets the region's address");
    NonNull::slice_from_raw_parts(start, length)
}
