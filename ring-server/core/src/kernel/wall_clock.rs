//! `WallClock`: time of day.
//!
//! A machine reads its clock once, when it starts; from then on monotonic time
//! carries it. A machine without a clock answers 1970 and `untrusted`.

use capnp::traits::HasStructSize;
use capos_config::capos_capnp::ClockProvenance;
use capos_config::capos_capnp::wall_clock::wall_time_results;

use super::{Context, MethodResult, Reply};
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::machine::{ClockReading, Machine};

const WALL_TIME: u16 = 0;
const NS_PER_S: u64 = 1_000_000_000;

pub(crate) fn call<M: Machine>(context: &mut Context<'_, M>) -> MethodResult {
    match context.sqe.method_id {
        WALL_TIME => wall_time(context),
        _ => Err(Exception::unimplemented().into()),
    }
}

fn wall_time<M: Machine>(context: &mut Context<'_, M>) -> MethodResult {
    let now_ns = context.machine.now_ns();
    let reading = context.machine.clock_reading();
    let now = reading.and_then(|reading| carry(reading, now_ns));
    emit(context.reply, now, now_ns)
        .map(Reply::Bytes)
        .map_err(|NoRoom| Exception::overloaded("reply scratch exhausted").into())
}

/// Time of day at a later moment: seconds and nanoseconds.
fn carry(reading: ClockReading, now_ns: u64) -> Option<(i64, u32)> {
    let since = now_ns.saturating_sub(reading.monotonic_ns);
    let nanos = u64::from(reading.utc_nanos) + since % NS_PER_S;
    let seconds = since / NS_PER_S + nanos / NS_PER_S;
    let utc_seconds = reading.utc_seconds.checked_add_unsigned(seconds)?;
    Some((utc_seconds, (nanos % NS_PER_S) as u32))
}

fn emit(out: &mut [u8], now: Option<(i64, u32)>, monotonic_ns: u64) -> Result<usize, NoRoom> {
    let size = <wall_time_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (seconds, nanos) = now.unwrap_or_default();
    let provenance = match now {
        Some(_) => ClockProvenance::MeasuredBootMonotonic,
        None => ClockProvenance::Untrusted,
    };
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u64(root, 0, seconds as u64)?;
    message.set_u32(root, 2, nanos)?;
    message.set_u16(root, 6, provenance.into())?;
    message.set_u64(root, 2, monotonic_ns)?;
    message.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_carry_over() {
        let reading = ClockReading {
            utc_seconds: -1,
            utc_nanos: 600_000_000,
            monotonic_ns: 1_000,
        };
        assert_eq!(carry(reading, 1_000), Some((-1, 600_000_000)));
        assert_eq!(carry(reading, 0), Some((-1, 600_000_000)), "no way back");
        assert_eq!(carry(reading, 400_001_000), Some((0, 0)));
        assert_eq!(carry(reading, 3_900_001_005), Some((3, 500_000_005)));
        let last = ClockReading {
            utc_seconds: i64::MAX,
            ..reading
        };
        assert_eq!(carry(last, 400_001_000), None, "the end of time");
    }

    #[test]
    fn a_reading_is_read_back() {
        let mut words = capnp::Word::allocate_zeroed_vec(8);
        let out = capnp::Word::words_to_bytes_mut(&mut words);
        let len = emit(out, Some((-5, 999_999_999)), 77).expect("room");
        let bytes = &mut &capnp::Word::words_to_bytes(&words)[..len];
        let options = capos_config::default_reader_options();
        let message = capnp::serialize::read_message_from_flat_slice_no_alloc(bytes, options)
            .expect("a message");
        let root: wall_time_results::Reader<'_> = message.get_root().expect("a struct");
        assert_eq!(root.get_utc_seconds(), -5);
        assert_eq!(root.get_utc_nanos(), 999_999_999);
        assert_eq!(root.get_monotonic_ns(), 77);
        let provenance = ClockProvenance::MeasuredBootMonotonic;
        assert_eq!(root.get_provenance(), Ok(provenance));
    }
}
