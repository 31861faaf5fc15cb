//! Folders of images by class: `train/<class>/*` and `test/<class>/*`, or `<class>/*` alone, of
//! which every fifth image is held out for the test.

use std::path::{Path, PathBuf};

use image::DynamicImage;
use jaq_network::Shape;
use rayon::prelude::*;

use super::{DataError, Dataset, Split};

/// One of how many images is held out where the folder has no test images of its own.
const HELD_OUT: usize = 5;

/// Whether `folder` may be one of images: it has folders in it.
pub(super) fn has_folders(folder: &Path) -> bool {
    entries(folder).is_ok_and(|found| found.iter().any(|path| path.is_dir()))
}

/// Reads the images of a folder.
pub(super) fn open(folder: &Path, name: &str) -> Result<Dataset, DataError> {
    let part = |names: &[&str]| names.iter().map(|n| folder.join(n)).find(|path| path.is_dir());
    let (train, test) = (part(&["train"]), part(&["test", "val", "validation"]));
    let (classes, train_files, test_files) = match (train, test) {
        (Some(train), Some(test)) => {
            let (classes, train_files) = files(&train)?;
            let (test_classes, test_files) = files(&test)?;
            if test_classes != classes {
                return Err(wrong(&test, "its class folders are not those of the training images"));
            }
            (classes, train_files, test_files)
        }
        (None, None) => {
            let (classes, all) = files(folder)?;
            let (mut train, mut test) = (Vec::new(), Vec::new());
            for (class, files) in all.into_iter().enumerate() {
                if files.len() < 2 {
                    let reason = "has one image: one to train on and one to hold out are wanted";
                    return Err(wrong(&folder.join(&classes[class]), reason));
                }
                // A class of fewer images gives its last one.
                let every = HELD_OUT.min(files.len());
                let held = |i: usize| i % every == every - 1;
                let of = |out: bool| (0..files.len()).filter(move |i| held(*i) == out);
                test.push(of(true).map(|i| files[i].clone()).collect());
                train.push(of(false).map(|i| files[i].clone()).collect());
            }
            (classes, train, test)
        }
        _ => return Err(wrong(folder, "has only one of the folders `train` and `test`")),
    };
    let first = &train_files[0][0];
    let like = decode(first)?;
    let channels = if like.color().has_color() { 3 } else { 1 };
    let side = |n: u32| u16::try_from(n).map_err(|_| wrong(first, "has a side beyond 65535"));
    let shape = Shape::new(side(like.height())?, side(like.width())?, channels);
    let train = split(&train_files, shape, first)?;
    let test = split(&test_files, shape, first)?;
    let test_label = format!("test images of {name}, {} images", test.len());
    Dataset { name: name.to_owned(), shape, classes, train, test, test_label }.checked()
}

fn wrong(path: &Path, reason: &str) -> DataError {
    DataError::Format { file: path.display().to_string(), reason: reason.to_owned() }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let io = |source| DataError::Io { path: folder.to_owned(), source };
    let hidden = |path: &PathBuf| {
        path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'))
    };
    let found: Result<Vec<PathBuf>, _> =
        std::fs::read_dir(folder).map_err(io)?.map(|entry| entry.map(|e| e.path())).collect();
    let mut found = found.map_err(io)?;
    found.retain(|path| !hidden(path));
    found.sort();
    Ok(found)
}

/// Class names, and the images of each, both in the order of their names.
fn files(folder: &Path) -> Result<(Vec<String>, Vec<Vec<PathBuf>>), DataError> {
    let folders: Vec<PathBuf> = entries(folder)?.into_iter().filter(|path| path.is_dir()).collect();
    if !(2..=256).contains(&folders.len()) {
        return Err(wrong(
            folder,
            &format!("2 to 256 class folders are wanted, {} there", folders.len()),
        ));
    }
    let mut all = Vec::new();
    for class in &folders {
        let mut found = entries(class)?;
        found.retain(|path| {
            let kind = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            ["png", "jpg", "jpeg"].contains(&kind.as_str())
        });
        if found.is_empty() {
            return Err(wrong(class, "the class folder holds no images (png, jpg)"));
        }
        all.push(found);
    }
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok((folders.iter().map(name).collect(), all))
}

fn decode(path: &Path) -> Result<DynamicImage, DataError> {
    let bytes = super::read(path)?;
    image::load_from_memory(&bytes).map_err(|error| wrong(path, &error.to_string()))
}

/// The pixels of all files, each of which must have the shape of `first`.
fn split(classes: &[Vec<PathBuf>], shape: Shape, first: &Path) -> Result<Split, DataError> {
    let pixels = |path: &PathBuf| -> Result<Vec<u8>, DataError> {
        let image = decode(path)?;
        if (image.height(), image.width()) != (shape.h.into(), shape.w.into()) {
            let reason = format!(
                "is {}x{} where {} is {}x{}: all images must have one size",
                image.height(),
                image.width(),
                first.display(),
                shape.h,
                shape.w
            );
            return Err(wrong(path, &reason));
        }
        match (shape.c, image.color().has_color()) {
            (1, true) => {
                let reason = format!("is in colour where {} is grey", first.display());
                Err(wrong(path, &reason))
            }
            (1, false) => Ok(image.into_luma8().into_raw()),
            _ => Ok(image.into_rgb8().into_raw()),
        }
    };
    let files: Vec<&PathBuf> = classes.iter().flatten().collect();
    let images: Result<Vec<Vec<u8>>, DataError> = files.into_par_iter().map(pixels).collect();
    let labels = classes.iter().enumerate();
    Ok(Split {
        images: images?.concat(),
        labels: labels.flat_map(|(class, files)| vec![class as u8; files.len()]).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, RgbImage};

    fn message(folder: &Path) -> String {
        Dataset::open(&folder.display().to_string()).unwrap_err().to_string()
    }

    /// Class `class` of a folder gets `count` grey images of that brightness.
    fn fill(folder: &Path, class: &str, count: usize, brightness: u8) {
        std::fs::create_dir_all(folder.join(class)).unwrap();
        for i in 0..count {
            let image = GrayImage::from_pixel(3, 2, [brightness + i as u8].into());
            image.save(folder.join(class).join(format!("{i}.png"))).unwrap();
        }
    }

    #[test]
    fn a_fifth_is_held_out_or_what_lies_in_test() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().display().to_string();
        fill(dir.path(), "cat", 10, 0);
        fill(dir.path(), "ant", 3, 100);
        let data = Dataset::open(&name).unwrap();
        assert_eq!(
            (data.shape, data.classes),
            (Shape::new(2, 3, 1), vec!["ant".into(), "cat".into()])
        );
        assert_eq!((data.train.len(), data.test.len()), (10, 3));
        assert_eq!(data.test.labels, [0, 1, 1]);
        assert_eq!(data.test.image(0), [102; 6]);
        assert_eq!(data.test.image(1), [4; 6]);

        let dir = tempfile::tempdir().unwrap();
        for part in ["train", "test"] {
            fill(&dir.path().join(part), "a", 2, 7);
            fill(&dir.path().join(part), "b", 1, 9);
        }
        let data = Dataset::open(&dir.path().display().to_string()).unwrap();
        assert_eq!((data.train.len(), data.test.labels), (3, vec![0, 0, 1]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        fill(folder, "a", 6, 0);
        assert!(message(folder).contains("class folders"), "{}", message(folder));
        std::fs::create_dir(folder.join("empty")).unwrap();
        let text = message(folder);
        assert!(text.contains("empty") && text.contains("no images"), "{text}");
        fill(folder, "empty", 1, 0);
        assert!(message(folder).contains("one image"), "{}", message(folder));
        fill(folder, "empty", 2, 0);
        Dataset::open(&folder.display().to_string()).unwrap();
        let odd = folder.join("a/odd.png");
        GrayImage::new(4, 2).save(&odd).unwrap();
        let text = message(folder);
        assert!(text.contains("odd.png") && text.contains("2x4") && text.contains("2x3"), "{text}");
        RgbImage::from_pixel(3, 2, [1, 2, 3].into()).save(&odd).unwrap();
        assert!(message(folder).contains("colour"), "{}", message(folder));
        std::fs::write(&odd, "no image").unwrap();
        assert!(message(folder).contains("odd.png"), "{}", message(folder));
        std::fs::remove_file(&odd).unwrap();
        std::fs::create_dir(folder.join("train")).unwrap();
        assert!(message(folder).contains("only one"), "{}", message(folder));
    }
}
