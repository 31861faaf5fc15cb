//! The IDX format of MNIST and its kin: a magic number, big-endian sizes, bytes.

use std::io::Read;
use std::path::Path;

use jaq_network::Shape;

use super::{DataError, Split, read};

/// Images with labels, as one pair of IDX files holds them.
pub(super) struct Pair {
    pub split: Split,
    pub shape: Shape,
}

/// Reads `<prefix>-images-idx3-ubyte[.gz]` and its labels; the first prefix that exists.
pub(super) fn folder(path: &Path, prefixes: &[&str]) -> Result<Pair, DataError> {
    let prefix = prefixes
        .iter()
        .find(|p| super::find(&[path.to_owned()], &format!("{p}-images-idx3-ubyte")).is_some())
        .unwrap_or(&prefixes[0]);
    let mut bytes = unpacked(path, &format!("{prefix}-images-idx3-ubyte"))?;
    bytes.extend(unpacked(path, &format!("{prefix}-labels-idx1-ubyte"))?);
    pair(&mut &bytes[..], &path.join(prefix).display().to_string())
}

/// Parses images and then labels from the front of `bytes`, moving it on.
pub(super) fn pair(bytes: &mut &[u8], file: &str) -> Result<Pair, DataError> {
    let (sizes, pixels) = array(bytes, 3, file)?;
    let (_, labels) = array(bytes, 1, file)?;
    let fail = |reason: &str| DataError::Format { file: file.to_owned(), reason: reason.into() };
    let side = |size: usize| match u16::try_from(size) {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(fail("image sides of 1 to 65535 are wanted")),
    };
    let shape = Shape::new(side(sizes[1])?, side(sizes[2])?, 1);
    if sizes[0] != labels.len() {
        return Err(fail("the numbers of images and labels differ"));
    }
    Ok(Pair { split: Split { images: pixels.to_vec(), labels: labels.to_vec() }, shape })
}

/// One array of unsigned bytes with `dims` dimensions: its sizes and its data.
pub(super) fn array<'a>(
    bytes: &mut &'a [u8],
    dims: usize,
    file: &str,
) -> Result<(Vec<usize>, &'a [u8]), DataError> {
    let fail = |reason: String| DataError::Format { file: file.to_owned(), reason };
    let word = |bytes: &mut &'a [u8]| -> Option<u32> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        *bytes = rest;
        Some(u32::from_be_bytes(*head))
    };
    let magic = word(bytes).ok_or_else(|| fail("no IDX header".into()))?;
    if magic != 0x0800 | dims as u32 {
        return Err(fail(format!("magic {magic:#010x} is not that of {dims} dimensions of bytes")));
    }
    let mut sizes = Vec::with_capacity(dims);
    for _ in 0..dims {
        sizes.push(word(bytes).ok_or_else(|| fail("the IDX header is cut off".into()))? as usize);
    }
    let wanted = sizes.iter().try_fold(1usize, |n, s| n.checked_mul(*s));
    match wanted.filter(|n| *n <= bytes.len()) {
        Some(n) => {
            let (data, rest) = bytes.split_at(n);
            *bytes = rest;
            Ok((sizes, data))
        }
        None => Err(fail(format!("{sizes:?} bytes announced, {} there", bytes.len()))),
    }
}

/// Appends an array with its header.
pub(super) fn write(out: &mut Vec<u8>, sizes: &[usize], data: &[u8]) {
    out.extend((0x0800u32 | sizes.len() as u32).to_be_bytes());
    for size in sizes {
        out.extend((*size as u32).to_be_bytes());
    }
    out.extend(data);
}

/// The file, or its `.gz`.
fn unpacked(folder: &Path, name: &str) -> Result<Vec<u8>, DataError> {
    let plain = folder.join(name);
    if plain.exists() {
        return read(&plain);
    }
    let packed = folder.join(format!("{name}.gz"));
    let bytes = read(&packed)?;
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..])
        .read_to_end(&mut out)
        .map_err(|source| DataError::Io { path: packed, source })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_named() {
        let mut good = Vec::new();
        write(&mut good, &[2, 2, 3], &[7; 12]);
        write(&mut good, &[2], &[0, 1]);
        let parse =
            |bytes: &[u8]| pair(&mut &*bytes, "x").map(|p| p.shape).map_err(|e| e.to_string());
        assert_eq!(parse(&good), Ok(Shape::new(2, 3, 1)));
        for end in 0..good.len() {
            assert!(parse(&good[..end]).is_err(), "{end}");
        }
        let (mut fewer, n) = (good.clone(), good.len());
        fewer[n - 3] = 1;
        assert!(parse(&fewer).unwrap_err().contains("differ"));
        let mut huge = good.clone();
        huge[4..16].fill(0xff);
        assert!(parse(&huge).unwrap_err().contains("announced"));
        assert!(parse(&good[28..]).unwrap_err().contains("magic"));
    }
}
