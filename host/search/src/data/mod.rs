//! Data sets: images as raw bytes with labels, from the shipped subset, from known files, or from
//! the user's folder. Every loader checks lengths and ranges; nothing is downloaded here
//! ([`fetch`] does, when asked to).
//!
//! Must not know: networks, training, hardware.

mod augment;
mod cifar;
pub mod fetch;
mod idx;
mod images;
pub mod subset;

use std::path::{Path, PathBuf};

use jaq_network::Shape;

pub use augment::{Augment, Batches, plain};

/// Name of the data set that is part of the program.
pub const DEFAULT: &str = "fashion-mnist-subset";

/// Every data set known by name.
pub const NAMES: [&str; 3] = [DEFAULT, "fashion-mnist", "cifar-10"];

/// Images of one purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Raw bytes, image after image, each in HWC order.
    pub images: Vec<u8>,
    /// Class of every image.
    pub labels: Vec<u8>,
}

impl Split {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The bytes of image `index`.
    pub fn image(&self, index: usize) -> &[u8] {
        let size = self.images.len() / self.labels.len().max(1);
        &self.images[index * size..(index + 1) * size]
    }
}

/// A data set with a part to train on and a part to report accuracy on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Name, or path as given.
    pub name: String,
    /// Height, width and channels of every image.
    pub shape: Shape,
    /// Class names in the order of the labels.
    pub classes: Vec<String>,
    /// Images to train on.
    pub train: Split,
    /// Images to report accuracy on, never trained on.
    pub test: Split,
    /// What the test images are, for reports.
    pub test_label: String,
}

/// Why a data set could not be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum DataError {
    #[error("data set `{name}` is not on this machine (looked in {}); `jaq-host data get {name}` fetches it", list(.looked))]
    Missing { name: String, looked: Vec<PathBuf> },
    #[error(
        "`{name}` is neither a known data set (fashion-mnist-subset, fashion-mnist, cifar-10) nor a folder"
    )]
    Unknown { name: String },
    #[error("cannot read {path}: {source}", path = path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{file} is damaged or no such file: {reason}")]
    Format { file: String, reason: String },
    #[error("could not fetch `{name}`; tried:\n{tried}")]
    Fetch { name: String, tried: String },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

const FASHION_CLASSES: [&str; 10] = [
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
];

/// Where Debian's `dataset-fashion-mnist` puts its files.
const DEBIAN_FASHION: &str = "/usr/share/datasets/fashion-mnist";

/// Folder in which fetched data sets lie: `$JAQ_DATA`, else `jaq` in the user's data folder.
pub fn folder() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    variable("JAQ_DATA").unwrap_or_else(|| {
        variable("XDG_DATA_HOME")
            .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
            .unwrap_or_else(std::env::temp_dir)
            .join("jaq")
    })
}

impl Dataset {
    /// Opens a data set by name, or a folder of IDX files, of batches in CIFAR-10's layout, or of
    /// images by class.
    ///
    /// `fashion-mnist-subset` always works; its accuracy is reported on the full Fashion-MNIST
    /// test set where that is installed, else on the held-out part of the subset.
    pub fn open(name: &str) -> Result<Dataset, DataError> {
        match name {
            DEFAULT => {
                let mut data = subset::open()?;
                if let Some(path) = find(&fashion_places(), "t10k-images-idx3-ubyte") {
                    let full = idx::folder(&path, &["t10k"])?;
                    data.test = full.split;
                    data.test_label = format!("Fashion-MNIST test set, {} images", data.test.len());
                }
                Ok(data)
            }
            "fashion-mnist" => {
                let places = fashion_places();
                let path = find(&places, "train-images-idx3-ubyte")
                    .ok_or_else(|| DataError::Missing { name: name.into(), looked: places })?;
                Dataset::fashion(&path, name)
            }
            "cifar-10" => {
                let place = folder().join("cifar-10");
                match place.join("data_batch_1.bin").exists() {
                    true => cifar::open(&place, name),
                    false => Err(DataError::Missing { name: name.into(), looked: vec![place] }),
                }
            }
            _ => Dataset::open_folder(name),
        }
    }

    fn open_folder(name: &str) -> Result<Dataset, DataError> {
        let path = Path::new(name);
        if !path.is_dir() {
            return Err(DataError::Unknown { name: name.into() });
        }
        if find(&[path.to_owned()], "train-images-idx3-ubyte").is_some() {
            return Dataset::fashion(path, name);
        }
        if path.join("data_batch_1.bin").exists() {
            return cifar::open(path, name);
        }
        if images::has_folders(path) {
            return images::open(path, name);
        }
        Err(DataError::Format {
            file: name.into(),
            reason: "a folder of IDX files (train-images-idx3-ubyte, ...), of CIFAR-10 batches (data_batch_1.bin, ...) or of images by class (train/<class>/*.png, test/<class>/*.png, or <class>/*.png) is wanted".into(),
        })
    }

    /// MNIST-like IDX files; ten classes are taken for Fashion-MNIST's.
    fn fashion(path: &Path, name: &str) -> Result<Dataset, DataError> {
        let train = idx::folder(path, &["train"])?;
        let test = idx::folder(path, &["t10k", "test"])?;
        if train.shape != test.shape {
            return Err(DataError::Format {
                file: path.display().to_string(),
                reason: "training and test images differ in size".into(),
            });
        }
        let fashion = name == "fashion-mnist";
        let classes = match fashion {
            true => FASHION_CLASSES.map(str::to_owned).to_vec(),
            false => {
                let top = train.split.labels.iter().chain(&test.split.labels).max();
                (0..=*top.unwrap_or(&0)).map(|c| c.to_string()).collect()
            }
        };
        let test_label = match fashion {
            true => format!("Fashion-MNIST test set, {} images", test.split.len()),
            false => format!("test set of {name}, {} images", test.split.len()),
        };
        Dataset {
            name: name.to_owned(),
            shape: train.shape,
            classes,
            train: train.split,
            test: test.split,
            test_label,
        }
        .checked()
    }

    /// The same data set with fewer images, taken at equal distances.
    pub fn reduced(&self, train: usize, test: usize) -> Dataset {
        let few = |split: &Split, count: usize| {
            let count = count.clamp(1, split.len());
            let mut kept = Split::default();
            for index in (0..count).map(|i| i * split.len() / count) {
                kept.images.extend(split.image(index));
                kept.labels.push(split.labels[index]);
            }
            kept
        };
        let test = few(&self.test, test);
        Dataset {
            train: few(&self.train, train),
            test_label: format!("{} images of the {}", test.len(), self.test_label),
            test,
            ..self.clone()
        }
    }

    /// Lengths agree and every label has a name.
    fn checked(self) -> Result<Dataset, DataError> {
        let fail = |reason: String| Err(DataError::Format { file: self.name.clone(), reason });
        for (split, what) in [(&self.train, "training"), (&self.test, "test")] {
            if split.is_empty() {
                return fail(format!("no {what} images"));
            }
            if split.images.len() != split.len() * self.shape.elements() {
                return fail(format!("the {what} images and labels differ in number"));
            }
            if let Some(bad) = split.labels.iter().find(|l| usize::from(**l) >= self.classes.len())
            {
                return fail(format!(
                    "a {what} label is {bad}, but there are {} classes",
                    self.classes.len()
                ));
            }
        }
        Ok(self)
    }
}

fn fashion_places() -> Vec<PathBuf> {
    vec![folder().join("fashion-mnist"), PathBuf::from(DEBIAN_FASHION)]
}

/// The first place that holds `file`, packed or not.
fn find(places: &[PathBuf], file: &str) -> Option<PathBuf> {
    places.iter().find(|p| p.join(file).exists() || p.join(format!("{file}.gz")).exists()).cloned()
}

fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(path).map_err(|source| DataError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_idx_files_open() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().to_str().unwrap();
        let message = Dataset::open(name).unwrap_err().to_string();
        assert!(message.contains("IDX") && message.contains("CIFAR"), "{message}");
        let write = |prefix: &str, labels: &[u8]| {
            let (mut images, mut bytes) = (Vec::new(), Vec::new());
            idx::write(&mut images, &[labels.len(), 2, 2], &vec![9; 4 * labels.len()]);
            idx::write(&mut bytes, &[labels.len()], labels);
            std::fs::write(dir.path().join(format!("{prefix}-images-idx3-ubyte")), images).unwrap();
            std::fs::write(dir.path().join(format!("{prefix}-labels-idx1-ubyte")), bytes).unwrap();
        };
        write("train", &[0, 1, 2]);
        write("t10k", &[2]);
        let data = Dataset::open(name).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.classes.len()), (3, 1, 3));
        assert_eq!(data.shape, Shape::new(2, 2, 1));
        assert_eq!(data.reduced(2, 9).train.labels, [0, 1]);
        write("t10k", &[]);
        assert!(Dataset::open(name).unwrap_err().to_string().contains("no test images"));
    }

    #[test]
    fn unknown_names_say_what_is_known() {
        let message = Dataset::open("mnistt").unwrap_err().to_string();
        assert!(message.contains("`mnistt`") && message.contains("fashion-mnist"), "{message}");
        let missing =
            DataError::Missing { name: "cifar-10".into(), looked: vec!["x".into(), "y".into()] };
        let message = missing.to_string();
        assert!(message.contains("jaq-host data get cifar-10") && message.contains("x, y"));
    }
}
