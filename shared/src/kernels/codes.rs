//! Access to packed codes: activations by pixel and channel, weights in the plain bit stream, and
//! the writer of an output pixel.
//!
//! Reads past the end give zero and writes past the end are dropped, so that no call can panic;
//! on validated calls neither happens.

use crate::format::{Bits, TensorFormat};

/// One activation tensor, read code by code.
#[derive(Clone, Copy)]
pub struct Codes<'a> {
    bytes: &'a [u8],
    pixel_bytes: usize,
    storage: usize,
    mask: u32,
}

impl<'a> Codes<'a> {
    /// The tensor of `format` in `bytes`.
    pub fn new(format: TensorFormat, bytes: &'a [u8]) -> Self {
        Codes {
            bytes,
            pixel_bytes: format.pixel_bytes(),
            storage: format.bits.storage() as usize,
            mask: format.bits.max_unsigned(),
        }
    }

    /// The code of channel `c` of the pixel with the given index.
    #[inline(always)]
    pub fn get(&self, pixel: usize, c: usize) -> u32 {
        let bit = c * self.storage;
        let byte = self.bytes.get(pixel * self.pixel_bytes + bit / 8).copied().unwrap_or(0);
        (u32::from(byte) >> (bit % 8)) & self.mask
    }
}

/// Writes one tensor's codes in HWC order.
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    pixel_bytes: usize,
    storage: u32,
    /// First byte of the pixel.
    start: usize,
    /// Next byte to write.
    next: usize,
    held: u32,
    bits: u32,
}

impl<'a> Writer<'a> {
    /// Starts at the first code of the tensor of `format`.
    pub fn new(format: TensorFormat, bytes: &'a mut [u8]) -> Self {
        let (pixel_bytes, storage) = (format.pixel_bytes(), format.bits.storage());
        Writer { bytes, pixel_bytes, storage, start: 0, next: 0, held: 0, bits: 0 }
    }

    /// Appends the next channel's code.
    #[inline(always)]
    pub fn push(&mut self, code: u32) {
        self.held |= code << self.bits;
        self.bits += self.storage;
        if self.bits >= 8 {
            self.flush();
        }
    }

    /// Ends the pixel: the rest of it is filled with zeros.
    #[inline(always)]
    pub fn end_pixel(&mut self) {
        let end = self.start + self.pixel_bytes;
        while self.next < end {
            self.flush();
        }
        (self.start, self.next, self.held, self.bits) = (end, end, 0, 0);
    }

    #[inline(always)]
    fn flush(&mut self) {
        if let Some(byte) = self.bytes.get_mut(self.next) {
            *byte = self.held as u8;
        }
        self.next += 1;
        self.held = 0;
        self.bits = 0;
    }
}

/// The first 1, 2 or 4 bytes as a word; three count as a word that ends in zero.
#[inline(always)]
pub fn small_word(bytes: &[u8]) -> u32 {
    match *bytes {
        [a, b, c, d, ..] => u32::from_le_bytes([a, b, c, d]),
        [a, b, c] => u32::from_le_bytes([a, b, c, 0]),
        [a, b] => u32::from(u16::from_le_bytes([a, b])),
        [a] => u32::from(a),
        [] => 0,
    }
}

/// Writes the low bytes of `word` to all of `bytes`, at most four.
#[inline(always)]
pub fn put_small_word(word: u32, bytes: &mut [u8]) {
    let [a, b, c, d] = word.to_le_bytes();
    match bytes {
        [p, q, r, s, ..] => (*p, *q, *r, *s) = (a, b, c, d),
        [p, q, r] => (*p, *q, *r) = (a, b, c),
        [p, q] => (*p, *q) = (a, b),
        [p] => *p = a,
        [] => {}
    }
}

/// The four codes of `STORAGE` bits (2, 4 or 8) at the start of `bytes`; what is missing is 0.
#[inline(always)]
pub fn unpack_four<const STORAGE: usize>(bytes: &[u8]) -> [u32; 4] {
    let word = small_word(bytes.get(..STORAGE / 2).unwrap_or(bytes));
    core::array::from_fn(|i| word >> (i * STORAGE) & ((1 << STORAGE) - 1))
}

/// Writes four codes of `STORAGE` bits to the start of `bytes`; what has no room is dropped.
#[inline(always)]
pub fn pack_four<const STORAGE: usize>(codes: [u32; 4], bytes: &mut [u8]) {
    let word = (0..4).fold(0, |word, i| word | codes[i] << (i * STORAGE));
    let end = bytes.len().min(STORAGE / 2);
    put_small_word(word, bytes.get_mut(..end).unwrap_or_default());
}

/// Bytes of `count` weights of `bits` in the plain stream, in whole words.
pub const fn stream_bytes(count: usize, bits: Bits) -> usize {
    (count * bits.get() as usize).div_ceil(32) * 4
}

/// Writes signed codes as a stream of two's complement fields, least significant bit first.
pub fn write_stream(bits: Bits, codes: &[i8], out: &mut [u8]) {
    out.fill(0);
    let width = bits.get() as usize;
    for (i, &code) in codes.iter().enumerate() {
        let bit = i * width;
        let field = (code as u32 & bits.max_unsigned()) << (bit % 8);
        for (byte, value) in out.iter_mut().skip(bit / 8).zip(field.to_le_bytes()).take(2) {
            *byte |= value;
        }
    }
}

/// The signed code at `index` of a plain stream.
#[inline(always)]
pub fn read_stream(bits: Bits, stream: &[u8], index: usize) -> i32 {
    let bit = index * bits.get() as usize;
    let at = |i: usize| u32::from(stream.get(i).copied().unwrap_or(0));
    let pair = at(bit / 8) | at(bit / 8 + 1) << 8;
    let half = bits.half() as i32;
    (((pair >> (bit % 8)) & bits.max_unsigned()) as i32 ^ half) - half
}

/// The signed codes from `index` on of a plain stream.
#[inline(always)]
pub fn read_run(bits: Bits, stream: &[u8], index: usize, out: &mut [i8]) {
    let (width, half) = (bits.get(), bits.half());
    let bit = index * width as usize;
    let mut bytes = stream.iter().skip(bit / 8);
    let mut next = || u32::from(bytes.next().copied().unwrap_or(0));
    let mut held = next() >> (bit % 8);
    let mut have = 8 - (bit % 8) as u32;
    for code in out {
        if have < width {
            held |= next() << have;
            have += 8;
        }
        *code = (held & bits.max_unsigned() ^ half).wrapping_sub(half) as i8;
        held >>= width;
        have -= width;
    }
}

/// A word of equal codes, by the code that is to be repeated.
pub const fn every(bits: Bits) -> u32 {
    match bits {
        Bits::B2 => 0x5555_5555,
        Bits::B3 | Bits::B4 => 0x1111_1111,
        Bits::B8 => 0x0101_0101,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Shape;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn stream_round_trips_at_every_width() {
        for bits in Bits::ALL {
            let half = bits.half() as i32;
            let codes: Vec<i8> = (0..101).map(|i| ((i * 37) % (2 * half) - half) as i8).collect();
            let mut stream = vec![0xff; stream_bytes(codes.len(), bits)];
            write_stream(bits, &codes, &mut stream);
            for (i, &code) in codes.iter().enumerate() {
                assert_eq!(read_stream(bits, &stream, i), i32::from(code), "{bits} bits, {i}");
            }
            for first in 0..9 {
                let mut run = [0i8; 90];
                read_run(bits, &stream, first, &mut run);
                assert!(run.iter().zip(&codes[first..]).all(|(a, b)| a == b));
            }
        }
        assert_eq!(stream_bytes(32, Bits::B3), 12);
    }

    #[test]
    fn pixels_round_trip_and_fill_with_zeros() {
        for bits in Bits::ALL {
            let format = TensorFormat { shape: Shape::new(1, 3, 5), bits };
            let mut bytes = vec![0xff; format.bytes()];
            let code = |p: usize, c: usize| ((p * 7 + c * 3) as u32) & bits.max_unsigned();
            let mut writer = Writer::new(format, &mut bytes);
            for p in 0..3 {
                for c in 0..5 {
                    writer.push(code(p, c));
                }
                writer.end_pixel();
            }
            let codes = Codes::new(format, &bytes);
            for p in 0..3 {
                for c in 0..5 {
                    assert_eq!(codes.get(p, c), code(p, c));
                }
                let wide = TensorFormat { bits: Bits::B8, ..format };
                let fillers = (5 * bits.storage() as usize).div_ceil(8)..format.pixel_bytes();
                assert!(fillers.clone().all(|i| bytes[p * format.pixel_bytes() + i] == 0));
                assert!(wide.bytes() >= format.bytes());
            }
        }
    }
}
