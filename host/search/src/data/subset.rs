//! The Fashion-MNIST subset that is part of the program: real images without a download.
//!
//! `data/fashion-mnist-subset.xz` is an xz stream of four IDX arrays after another: training
//! images and labels, held-out images and labels. Of every class, the first 1,150 images of
//! Fashion-MNIST's training file are trained on and the first 200 of its test file are held out;
//! images are sorted by class, which compresses best (0.37 KB an image, lossless; 0.44 KB as
//! distributed). [`make`] writes the file from the full data set, byte for byte.
//! Fashion-MNIST is by Zalando SE, MIT licence (`data/FASHION-MNIST-LICENSE`).

use std::io::{Read, Write};
use std::path::Path;

use lzma_rust2::{XzOptions, XzReader, XzWriter};

use super::{DEFAULT, DataError, Dataset, FASHION_CLASSES, Split, idx};

/// Training images of every class.
pub const TRAIN_PER_CLASS: usize = 1150;
/// Held-out images of every class.
pub const TEST_PER_CLASS: usize = 200;

static PACKED: &[u8] = include_bytes!("../../data/fashion-mnist-subset.xz");

/// Unpacks the shipped subset.
pub fn open() -> Result<Dataset, DataError> {
    let damaged = |reason: String| DataError::Format { file: DEFAULT.into(), reason };
    let mut bytes = Vec::new();
    XzReader::new(PACKED, false).read_to_end(&mut bytes).map_err(|e| damaged(e.to_string()))?;
    let mut left = &bytes[..];
    let train = idx::pair(&mut left, DEFAULT)?;
    let test = idx::pair(&mut left, DEFAULT)?;
    Dataset {
        name: DEFAULT.into(),
        shape: train.shape,
        classes: FASHION_CLASSES.map(str::to_owned).to_vec(),
        test_label: format!("held-out part of the shipped subset, {} images", test.split.len()),
        train: train.split,
        test: test.split,
    }
    .checked()
}

/// Writes the subset's file from the installed full data set.
pub fn make(path: &Path) -> Result<(), DataError> {
    let full = Dataset::open("fashion-mnist")?;
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    for (split, count) in [(&full.train, TRAIN_PER_CLASS), (&full.test, TEST_PER_CLASS)] {
        let chosen = first_of_each_class(split, full.classes.len(), count);
        let (h, w) = (usize::from(full.shape.h), usize::from(full.shape.w));
        idx::write(&mut bytes, &[chosen.len(), h, w], &chosen.images);
        idx::write(&mut bytes, &[chosen.len()], &chosen.labels);
    }
    let mut options = XzOptions::with_preset(9);
    options.lzma_options.nice_len = 273;
    let mut writer = XzWriter::new(Vec::new(), options).map_err(io)?;
    writer.write_all(&bytes).map_err(io)?;
    let packed = writer.finish().map_err(io)?;
    std::fs::write(path, packed).map_err(io)
}

fn first_of_each_class(split: &Split, classes: usize, count: usize) -> Split {
    let mut chosen = Split::default();
    for class in 0..classes {
        let of_class = (0..split.len()).filter(|i| usize::from(split.labels[*i]) == class);
        for index in of_class.take(count) {
            chosen.images.extend(split.image(index));
            chosen.labels.push(class as u8);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_subset_is_whole_and_balanced() {
        const { assert!(PACKED.len() <= 5 << 20) };
        let data = open().unwrap();
        assert_eq!((data.shape.h, data.shape.w, data.shape.c), (28, 28, 1));
        for (split, count) in [(&data.train, TRAIN_PER_CLASS), (&data.test, TEST_PER_CLASS)] {
            for class in 0..10u8 {
                assert_eq!(split.labels.iter().filter(|l| **l == class).count(), count);
            }
        }
        let mut distinct: Vec<&[u8]> = data.train.images.chunks_exact(784).collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() > 11_000, "{}", distinct.len());
    }

    #[test]
    fn rule_takes_the_first_of_each_class() {
        let split = Split { images: (0..12).collect(), labels: vec![1, 0, 1, 1, 0, 0] };
        let chosen = first_of_each_class(&split, 2, 2);
        assert_eq!(chosen.labels, [0, 0, 1, 1]);
        assert_eq!(chosen.images, [2, 3, 8, 9, 0, 1, 4, 5]);
    }
}
