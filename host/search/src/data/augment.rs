//! Batches: which images in which order, and how each is altered before it is trained on.

use jaq_network::Shape;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Split;
use crate::rng::{Purpose, Rng};

/// Random alterations of training images; 0 or `false` switches one off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Largest shift in each direction, in pixels; what comes in is 0.
    pub shift: usize,
    /// Mirror left to right half of the time.
    pub flip: bool,
    /// Side of the square that is blanked half of the time, in pixels.
    pub cutout: usize,
}

impl Default for Augment {
    fn default() -> Self {
        Augment { shift: 1, flip: true, cutout: 0 }
    }
}

impl Augment {
    /// Images as they are.
    pub const NONE: Augment = Augment { shift: 0, flip: false, cutout: 0 };

    /// Draws what happens to one image.
    fn draw(&self, shape: Shape, rng: &mut Rng) -> Altered {
        let shift = |rng: &mut Rng| match self.shift {
            0 => 0,
            s => rng.below(2 * s + 1) as isize - s as isize,
        };
        let (dy, dx) = (shift(rng), shift(rng));
        let flip = self.flip && rng.below(2) == 1;
        let side = self.cutout as isize;
        let cut = (side > 0 && rng.below(2) == 1).then(|| {
            let (y, x) = (rng.below(shape.h.into()) as isize, rng.below(shape.w.into()) as isize);
            (y - side / 2, x - side / 2)
        });
        Altered { dy, dx, flip, cut, side }
    }
}

/// What happens to one image.
struct Altered {
    dy: isize,
    dx: isize,
    flip: bool,
    /// Top and left of the blanked square.
    cut: Option<(isize, isize)>,
    side: isize,
}

impl Altered {
    /// Alters an image (HWC) into `out` (CHW, raw / 255), as the network sees it.
    fn apply(&self, image: &[u8], shape: Shape, out: &mut [f32]) {
        let (h, w, c) = (shape.h as isize, shape.w as isize, usize::from(shape.c));
        for y in 0..h {
            for x in 0..w {
                let (sy, sx) = (y + self.dy, if self.flip { w - 1 - x } else { x } + self.dx);
                let hidden = self.cut.is_some_and(|(top, left)| {
                    (top..top + self.side).contains(&y) && (left..left + self.side).contains(&x)
                });
                let inside = (0..h).contains(&sy) && (0..w).contains(&sx) && !hidden;
                for ch in 0..c {
                    let target = (ch as isize * h + y) * w + x;
                    out[target as usize] = match inside {
                        true => f32::from(image[(sy * w + sx) as usize * c + ch]) / 255.0,
                        false => 0.0,
                    };
                }
            }
        }
    }
}

/// The batches of one epoch over some of a split's images.
pub struct Batches<'a> {
    split: &'a Split,
    shape: Shape,
    order: Vec<u32>,
    size: usize,
    augment: Augment,
    seed: u64,
    epoch: u64,
}

impl<'a> Batches<'a> {
    /// Images `of` (indices) shuffled for `epoch`, in batches of `size`; the last, smaller one is
    /// left out (other images in every epoch).
    pub fn shuffled(
        split: &'a Split,
        shape: Shape,
        mut of: Vec<u32>,
        size: usize,
        augment: Augment,
        seed: u64,
        epoch: u64,
    ) -> Self {
        Rng::at(seed, Purpose::Order, epoch).shuffle(&mut of);
        Batches { split, shape, order: of, size, augment, seed, epoch }
    }

    /// Number of batches.
    pub fn len(&self) -> usize {
        self.order.len() / self.size
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Batch `index`: `[size, C, H, W]` in `0..=1`, and labels.
    pub fn get(&self, index: usize) -> (Vec<f32>, Vec<u32>) {
        let chosen = &self.order[index * self.size..(index + 1) * self.size];
        let mut rng = Rng::at(self.seed, Purpose::Augment, (self.epoch << 32) | (index as u64));
        let size = self.shape.elements();
        let mut images = vec![0.0; chosen.len() * size];
        let altered: Vec<Altered> =
            chosen.iter().map(|_| self.augment.draw(self.shape, &mut rng)).collect();
        images.par_chunks_exact_mut(size).zip(chosen).zip(altered).for_each(
            |((out, image), altered)| {
                altered.apply(self.split.image(*image as usize), self.shape, out);
            },
        );
        let labels = chosen.iter().map(|i| u32::from(self.split.labels[*i as usize])).collect();
        (images, labels)
    }
}

/// Images `range` of a split unaltered, in order: `[n, C, H, W]` in `0..=1`, and labels.
pub fn plain(split: &Split, shape: Shape, range: std::ops::Range<usize>) -> (Vec<f32>, Vec<u32>) {
    let size = shape.elements();
    let mut images = vec![0.0; range.len() * size];
    // Nothing random is drawn where nothing is altered.
    let mut rng = Rng::at(0, Purpose::Augment, 0);
    for (index, out) in range.clone().zip(images.chunks_exact_mut(size)) {
        Augment::NONE.draw(shape, &mut rng).apply(split.image(index), shape, out);
    }
    (images, range.map(|i| u32::from(split.labels[i])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_cover_and_repeat() {
        let split = Split { images: (0..40).collect(), labels: (0..10).collect() };
        let shape = Shape::new(2, 2, 1);
        let batches = |epoch, augment| {
            Batches::shuffled(&split, shape, (0..10).collect(), 5, augment, 3, epoch)
        };
        let epoch = |e, augment| {
            let b = batches(e, augment);
            (0..b.len()).map(|i| b.get(i)).collect::<Vec<_>>()
        };
        let mut labels: Vec<u32> =
            epoch(0, Augment::NONE).into_iter().flat_map(|(_, l)| l).collect();
        assert_ne!(labels, (0..10).collect::<Vec<_>>());
        labels.sort_unstable();
        assert_eq!(labels, (0..10).collect::<Vec<_>>());
        assert_eq!(epoch(1, Augment::default()), epoch(1, Augment::default()));
        assert_ne!(epoch(1, Augment::default()), epoch(2, Augment::default()));
        let (images, labels) = &epoch(0, Augment::NONE)[0];
        assert_eq!(images[0], (labels[0] * 4) as f32 / 255.0);
    }

    #[test]
    fn plain_images_are_chw() {
        let split = Split { images: vec![0, 51, 102, 153, 204, 255], labels: vec![4] };
        let (x, labels) = plain(&split, Shape::new(1, 2, 3), 0..1);
        assert_eq!(labels, [4]);
        assert_eq!(x, [0.0, 0.6, 0.2, 0.8, 0.4, 1.0].map(|v: f32| v));
    }
}
