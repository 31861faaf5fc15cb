//! From packed activations to the words of a pixel group: position by position, pairs of pixels in
//! the halves of a word, or single ones, or the bytes of four positions of single ones.

use super::{PIXELS, WORDS};
use crate::format::{Bits, LayerShape, Window};

/// A byte of equal codes.
pub fn byte_of(bits: Bits, code: u8) -> u8 {
    code.wrapping_mul(match bits {
        Bits::B2 => 0x55,
        Bits::B3 | Bits::B4 => 0x11,
        Bits::B8 => 1,
    })
}

/// Finds the codes under the windows of a pixel group.
pub struct Gather<'a> {
    window: Window,
    bits: Bits,
    /// Height, width and channels of the input.
    size: [usize; 3],
    output_width: usize,
    input: &'a [u8],
    pixel_bytes: usize,
    /// A pixel of zero points.
    padding: &'a [u8],
}

impl<'a> Gather<'a> {
    /// Of `layer`; `padding` is a pixel long.
    pub fn new(layer: &LayerShape, input: &'a [u8], padding: &'a [u8]) -> Self {
        let shape = layer.input;
        Gather {
            window: layer.op.window(),
            bits: layer.bits.input,
            size: [shape.h, shape.w, shape.c].map(usize::from),
            output_width: usize::from(layer.output.w).max(1),
            input,
            pixel_bytes: layer.input_format().pixel_bytes(),
            padding,
        }
    }

    /// Expands pairs: eight output pixels from `first` on.
    #[inline(never)]
    pub fn pairs(&self, first: usize, out: &mut [[u32; WORDS]]) {
        self.taps::<PIXELS>(first, out, |rows, out| {
            for (column, rows) in rows.as_chunks::<2>().0.iter().enumerate() {
                match self.bits {
                    Bits::B2 => super::spread::<2>(rows, out, column),
                    Bits::B3 | Bits::B4 => super::spread::<4>(rows, out, column),
                    Bits::B8 => super::spread::<8>(rows, out, column),
                }
            }
        });
    }

    /// Expands bytes of single pixels: four output pixels from `first` on.
    #[inline(never)]
    pub fn singles(&self, first: usize, out: &mut [[u32; WORDS]]) {
        self.taps::<WORDS>(first, out, |rows, out| {
            let [a, b, c, d] = rows;
            let bytes = a.iter().zip(*b).zip(c.iter().zip(*d));
            for (out, ((&a, &b), (&c, &d))) in out.iter_mut().zip(bytes) {
                *out = [a.into(), b.into(), c.into(), d.into()];
            }
        });
    }

    /// Words of four positions of single pixels, a column a pixel: four output pixels from `first`
    /// on. Codes are bytes.
    #[inline(never)]
    pub fn bytes(&self, first: usize, out: &mut [[u32; WORDS]]) {
        let channels = self.size[2];
        let mut position = 0;
        self.windows::<WORDS>(first, |rows| {
            let part = out.get_mut(position / 4..).unwrap_or_default();
            let shift = position as u32 % 4 * 8;
            position += channels;
            if channels.is_multiple_of(4) {
                // Whole words of channels lie in whole words of positions.
                let words =
                    rows.map(|row| bytemuck::try_cast_slice::<u8, u32>(row).unwrap_or_default());
                let [a, b, c, d] = words.map(|words| words.iter().copied());
                for ((out, (a, b)), (c, d)) in part.iter_mut().zip(a.zip(b)).zip(c.zip(d)) {
                    *out = [a, b, c, d];
                }
                return;
            }
            // Others meet two words each; what fills up the last one is written over by the next
            // tap, or meets weights of zero.
            for (i, row) in rows.iter().enumerate() {
                let mut column = part.iter_mut().map(|words| &mut words[i]);
                let mut last = column.next();
                for bytes in row.chunks(4) {
                    let word = match *bytes {
                        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
                        [a, b] => u16::from_le_bytes([a, b]).into(),
                        _ => bytes.first().copied().unwrap_or_default().into(),
                    };
                    if let Some(last) = &mut last {
                        **last = **last & !(u32::MAX << shift) | word << shift;
                    }
                    last = column.next();
                    if let (Some(last), 8..) = (&mut last, shift) {
                        **last = word >> (32 - shift);
                    }
                }
            }
        });
    }

    /// Calls `expand` with the pixels under every tap and where their channels go.
    #[inline(always)]
    fn taps<const N: usize>(
        &self,
        first: usize,
        out: &mut [[u32; WORDS]],
        expand: impl Fn(&[&[u8]; N], &mut [[u32; WORDS]]),
    ) {
        let mut parts = out.chunks_exact_mut(self.size[2].max(1));
        self.windows(first, |rows| {
            if let Some(part) = parts.next() {
                expand(rows, part);
            }
        });
    }

    /// Calls `expand` with the pixels under every tap.
    #[inline(always)]
    fn windows<const N: usize>(&self, first: usize, mut expand: impl FnMut(&[&[u8]; N])) {
        let [height, width, _] = self.size;
        if self.window == Window::POINT {
            // The output's pixels are the input's; behind the last anything serves.
            let pixels = self.input.get(first * self.pixel_bytes..).unwrap_or_default();
            let mut pixels = pixels.chunks_exact(self.pixel_bytes.max(1));
            let rows = core::array::from_fn(|_| pixels.next().unwrap_or(self.padding));
            return expand(&rows);
        }
        let stride = usize::from(self.window.stride);
        let (top, left) = (usize::from(self.window.pads.top), usize::from(self.window.pads.left));
        // First row and column under every pixel's window; above and left of the input wrapping.
        let mut origins = [(0, 0); N];
        let width_out = self.output_width.max(1);
        let (mut oy, mut ox) = (first / width_out, first % width_out);
        for origin in &mut origins {
            *origin = ((oy * stride).wrapping_sub(top), (ox * stride).wrapping_sub(left));
            ox += 1;
            if ox == self.output_width {
                (oy, ox) = (oy + 1, 0);
            }
        }
        for ky in 0..usize::from(self.window.kh) {
            for kx in 0..usize::from(self.window.kw) {
                let rows = origins.map(|(y, x)| {
                    let (y, x) = (y.wrapping_add(ky), x.wrapping_add(kx));
                    if y >= height || x >= width {
                        return self.padding;
                    }
                    let start = (y * width + x) * self.pixel_bytes;
                    self.input.get(start..start + self.pixel_bytes).unwrap_or(self.padding)
                });
                expand(&rows);
            }
        }
    }
}

/// Takes the codes of `STORAGE` bits of two pixels apart, into one column of `out`.
#[inline(always)]
pub fn spread<const STORAGE: u32>(rows: &[&[u8]; 2], out: &mut [[u32; WORDS]], column: usize) {
    let mask = ((1 << STORAGE) - 1) * 0x0001_0001;
    let bytes = rows[0].iter().zip(rows[1]);
    for ((&a, &b), out) in bytes.zip(out.chunks_mut((8 / STORAGE) as usize)) {
        let word = u32::from(a) | u32::from(b) << 16;
        for (i, out) in out.iter_mut().enumerate() {
            out[column % WORDS] = word >> (i as u32 * STORAGE) & mask;
        }
    }
}

/// Sums of every column.
#[cfg_attr(jaq_armv6m, allow(dead_code))]
pub fn sums(expanded: &[[u32; WORDS]]) -> [u32; WORDS] {
    let mut sums = [0u32; WORDS];
    for words in expanded {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums
}
