//! CIFAR-10 in its standard binary layout: rows of a label byte and 3 planes of 32x32 bytes; and
//! the user's own images in that layout.

use std::path::Path;

use jaq_network::Shape;

use super::{DataError, Dataset, Split, read};

const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const PLANE: usize = 32 * 32;

/// Reads `data_batch_1.bin`, `data_batch_2.bin` and so on, and `test_batch.bin` from `folder`. The
/// classes are the lines of `batches.meta.txt` where there is one, else those of CIFAR-10.
pub(super) fn open(folder: &Path, name: &str) -> Result<Dataset, DataError> {
    let batch = |i: usize| folder.join(format!("data_batch_{i}.bin"));
    // The known data set has five; the first one that is missing is named.
    let known = if name == "cifar-10" { 5 } else { 1 };
    let mut train = Split::default();
    for i in (1..).take_while(|i| *i <= known || batch(*i).exists()) {
        append(&batch(i), &mut train)?;
    }
    let mut test = Split::default();
    append(&folder.join("test_batch.bin"), &mut test)?;
    let meta = folder.join("batches.meta.txt");
    let classes = match meta.exists() {
        true => {
            let text = String::from_utf8_lossy(&read(&meta)?).into_owned();
            text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect()
        }
        false => CLASSES.map(str::to_owned).to_vec(),
    };
    Dataset {
        name: name.to_owned(),
        shape: Shape::new(32, 32, 3),
        classes,
        test_label: match name {
            "cifar-10" => format!("CIFAR-10 test set, {} images", test.len()),
            _ => format!("test batch of {name}, {} images", test.len()),
        },
        train,
        test,
    }
    .checked()
}

fn append(path: &Path, split: &mut Split) -> Result<(), DataError> {
    let bytes = read(path)?;
    let rows = bytes.chunks_exact(1 + 3 * PLANE);
    if bytes.is_empty() || !rows.remainder().is_empty() {
        return Err(DataError::Format {
            file: path.display().to_string(),
            reason: format!("{} bytes are no whole number of 3073-byte rows", bytes.len()),
        });
    }
    for row in rows {
        split.labels.push(row[0]);
        for pixel in 0..PLANE {
            split.images.extend((0..3).map(|c| row[1 + c * PLANE + pixel]));
        }
    }
    Ok(())
}

/// Rows of the standard layout from an image with an HWC picture in every row of pixels.
pub(super) fn rows(pixels: &[u8], labels: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(labels.len() * (1 + 3 * PLANE));
    for (pixels, label) in pixels.chunks_exact(3 * PLANE).zip(labels) {
        out.push(*label);
        (0..3).for_each(|c| out.extend((0..PLANE).map(|p| pixels[p * 3 + c])));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_pixels() {
        let dir = tempfile::tempdir().unwrap();
        let mut row = vec![3u8];
        for plane in 1..=3u8 {
            row.extend([plane * 10; PLANE]);
        }
        for name in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4"] {
            std::fs::write(dir.path().join(format!("{name}.bin")), &row).unwrap();
        }
        std::fs::write(dir.path().join("test_batch.bin"), &row).unwrap();
        let last = dir.path().join("data_batch_5.bin");
        let open = || open(dir.path(), "cifar-10").map_err(|e| e.to_string());
        assert!(open().unwrap_err().contains("data_batch_5"));
        std::fs::write(&last, &row[1..]).unwrap();
        assert!(open().unwrap_err().contains("3073"));
        std::fs::write(&last, &row).unwrap();
        let data = open().unwrap();
        assert_eq!((data.train.len(), data.test.len()), (5, 1));
        assert_eq!(&data.test.images[..6], [10, 20, 30, 10, 20, 30]);
        assert_eq!(rows(&data.test.images, &data.test.labels), row);
        row[0] = 10;
        std::fs::write(&last, &row).unwrap();
        assert!(open().unwrap_err().contains("label is 10"));
        // Images of the user's own: any number of batches, classes by name.
        let own = || super::open(dir.path(), "mine").map_err(|e| e.to_string());
        assert!(own().unwrap_err().contains("label is 10"));
        let names: Vec<String> = (0..11).map(|i| format!("class {i}\n")).collect();
        std::fs::write(dir.path().join("batches.meta.txt"), names.concat()).unwrap();
        assert_eq!(own().unwrap().classes[10], "class 10");
        std::fs::remove_file(dir.path().join("data_batch_2.bin")).unwrap();
        assert_eq!(own().unwrap().train.len(), 1);
    }
}
