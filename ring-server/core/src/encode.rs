//! Emission of small Cap'n Proto messages into a caller's buffer.
//!
//! The `capnp` crate's message builder keeps its segments in heap storage.
//! Results that leave the dispatcher are a handful of words, so they are laid
//! out directly: one segment, root struct first. Struct sizes come from the
//! generated bindings; tests read every message back with the `capnp` crate.
//!
//! Format: <https://capnproto.org/encoding.html>.

use capnp::private::layout::StructSize;

const WORD_BYTES: usize = 8;
/// Segment table of a one-segment message: count - 1, then its length.
const SEGMENT_TABLE_WORDS: usize = 1;
const ROOT_POINTER_WORDS: usize = 1;
/// A struct without fields lies at its own pointer: offset -1.
const EMPTY_STRUCT_POINTER: u64 = 0xffff_fffc;
const LIST_POINTER: u64 = 1;
const LIST_OF_BYTES: u64 = 2;
const LIST_OF_POINTERS: u64 = 6;
const LIST_OF_COMPOSITES: u64 = 7;

/// The message does not fit in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// A message under construction: words appended to a byte buffer.
pub struct Emitter<'a> {
    out: &'a mut [u8],
    words: usize,
}

/// Where a struct's data and pointers lie, in words from the message start.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    data: usize,
    pointers: usize,
}

impl<'a> Emitter<'a> {
    /// Starts a message whose root is a struct of `size`, all fields default.
    ///
    /// # Errors
    /// [`NoRoom`] if `out` is too short.
    pub fn new(out: &'a mut [u8], size: StructSize) -> Result<(Self, Placed), NoRoom> {
        let mut emitter = Self { out, words: 0 };
        emitter.append(SEGMENT_TABLE_WORDS + ROOT_POINTER_WORDS)?;
        let root = emitter.place_struct(size)?;
        let empty = size.data == 0 && size.pointers == 0;
        let pointer = if empty {
            EMPTY_STRUCT_POINTER
        } else {
            struct_shape(size)
        };
        emitter.set_word(SEGMENT_TABLE_WORDS, pointer)?;
        Ok((emitter, root))
    }

    /// Appends an untyped struct body, zeroed.
    fn place_struct(&mut self, size: StructSize) -> Result<Placed, NoRoom> {
        let (data, pointers) = (usize::from(size.data), usize::from(size.pointers));
        let at = self.append(data + pointers)?;
        Ok(Placed {
            data: at,
            pointers: at + data,
        })
    }

    /// Sets bit 0 of the data section.
    pub fn set_first_bool(&mut self, place: Placed, value: bool) -> Result<(), NoRoom> {
        self.set_u16(place, 0, value.into())
    }

    /// Sets 16 bits of the data section.
    pub fn set_u16(&mut self, place: Placed, index: usize, value: u16) -> Result<(), NoRoom> {
        self.set_data(place, index * 2, &value.to_le_bytes())
    }

    /// Sets 32 bits of the data section.
    pub fn set_u32(&mut self, place: Placed, index: usize, value: u32) -> Result<(), NoRoom> {
        self.set_data(place, index * 4, &value.to_le_bytes())
    }

    /// Sets 64 bits of the data section.
    pub fn set_u64(&mut self, place: Placed, index: usize, value: u64) -> Result<(), NoRoom> {
        self.set_data(place, index * WORD_BYTES, &value.to_le_bytes())
    }

    /// Appends `text` with its terminator and points field `index` at it.
    pub fn set_text(&mut self, place: Placed, index: usize, text: &str) -> Result<(), NoRoom> {
        let bytes = text.len() + 1;
        let at = self.append(bytes.div_ceil(WORD_BYTES))?;
        let start = at * WORD_BYTES;
        self.out[start..start + text.len()].copy_from_slice(text.as_bytes());
        let pointer = place.pointers + index;
        let shape = LIST_OF_BYTES | (bytes as u64) << 3;
        self.set_word(pointer, list_pointer(pointer, at, shape))
    }

    /// Appends `bytes` as data and points field `index` at it.
    pub fn set_bytes_field(
        &mut self,
        place: Placed,
        index: usize,
        bytes: &[u8],
    ) -> Result<(), NoRoom> {
        let at = self.append(bytes.len().div_ceil(WORD_BYTES))?;
        self.set_bytes_at(at, bytes)?;
        let pointer = place.pointers + index;
        let shape = LIST_OF_BYTES | (bytes.len() as u64) << 3;
        self.set_word(pointer, list_pointer(pointer, at, shape))
    }

    /// Appends `len` bytes of data for the caller to fill, and points field
    /// `index` at them.
    pub fn place_bytes_field(
        &mut self,
        place: Placed,
        index: usize,
        len: usize,
    ) -> Result<&mut [u8], NoRoom> {
        let at = self.append(len.div_ceil(WORD_BYTES))?;
        let pointer = place.pointers + index;
        let shape = LIST_OF_BYTES | (len as u64) << 3;
        self.set_word(pointer, list_pointer(pointer, at, shape))?;
        let start = at * WORD_BYTES;
        self.out.get_mut(start..start + len).ok_or(NoRoom)
    }

    fn set_bytes_at(&mut self, word: usize, bytes: &[u8]) -> Result<(), NoRoom> {
        self.set_bytes(word * WORD_BYTES, bytes)
    }

    /// Appends a struct of `size`, all fields default, and points field `index`
    /// at it.
    pub fn set_struct(
        &mut self,
        place: Placed,
        index: usize,
        size: StructSize,
    ) -> Result<Placed, NoRoom> {
        let placed = self.place_struct(size)?;
        let pointer = place.pointers + index;
        let offset = (placed.data - pointer - 1) as u64;
        self.set_word(pointer, offset << 2 | struct_shape(size))?;
        Ok(placed)
    }

    /// Appends a list of `count` pointers, each a field of what is returned, and
    /// points field `index` at it.
    pub fn set_pointer_list(
        &mut self,
        place: Placed,
        index: usize,
        count: usize,
    ) -> Result<Placed, NoRoom> {
        let at = self.append(count)?;
        let pointer = place.pointers + index;
        let shape = LIST_OF_POINTERS | (count as u64) << 3;
        self.set_word(pointer, list_pointer(pointer, at, shape))?;
        Ok(Placed {
            data: at,
            pointers: at,
        })
    }

    /// Appends a list of `count` structs and points field `index` at it;
    /// returns where the first struct's tag ends.
    pub fn set_list(
        &mut self,
        place: Placed,
        index: usize,
        count: usize,
        size: StructSize,
    ) -> Result<List, NoRoom> {
        let step = usize::from(size.data) + usize::from(size.pointers);
        let tag = self.append(1 + step * count)?;
        self.set_word(tag, struct_shape(size) | (count as u64) << 2)?;
        let pointer = place.pointers + index;
        let shape = LIST_OF_COMPOSITES | ((step * count) as u64) << 3;
        self.set_word(pointer, list_pointer(pointer, tag, shape))?;
        Ok(List {
            first: tag + 1,
            step,
            data: usize::from(size.data),
        })
    }

    /// Completes the segment table; returns the message length in bytes.
    pub fn finish(mut self) -> Result<usize, NoRoom> {
        let segment = (self.words - SEGMENT_TABLE_WORDS) as u64;
        self.set_word(0, segment << 32)?;
        Ok(self.words * WORD_BYTES)
    }

    fn append(&mut self, words: usize) -> Result<usize, NoRoom> {
        let at = self.words;
        let end = at.checked_add(words).ok_or(NoRoom)?;
        self.out
            .get_mut(at * WORD_BYTES..end * WORD_BYTES)
            .ok_or(NoRoom)?
            .fill(0);
        self.words = end;
        Ok(at)
    }

    fn set_word(&mut self, word: usize, value: u64) -> Result<(), NoRoom> {
        self.set_bytes(word * WORD_BYTES, &value.to_le_bytes())
    }

    fn set_data(&mut self, place: Placed, offset: usize, bytes: &[u8]) -> Result<(), NoRoom> {
        self.set_bytes(place.data * WORD_BYTES + offset, bytes)
    }

    fn set_bytes(&mut self, start: usize, bytes: &[u8]) -> Result<(), NoRoom> {
        let end = start + bytes.len();
        self.out
            .get_mut(start..end)
            .ok_or(NoRoom)?
            .copy_from_slice(bytes);
        Ok(())
    }
}

/// A placed list of structs.
#[derive(Clone, Copy, Debug)]
pub struct List {
    first: usize,
    step: usize,
    data: usize,
}

impl List {
    /// The struct at `index`.
    pub fn element(self, index: usize) -> Placed {
        let at = self.first + index * self.step;
        Placed {
            data: at,
            pointers: at + self.data,
        }
    }
}

/// Upper half of a struct pointer or list tag.
fn struct_shape(size: StructSize) -> u64 {
    u64::from(size.data) << 32 | u64::from(size.pointers) << 48
}

/// A list pointer at word `from` to a list at word `to`.
fn list_pointer(from: usize, to: usize, shape: u64) -> u64 {
    let offset = (to - from - 1) as u64;
    LIST_POINTER | offset << 2 | shape << 32
}
