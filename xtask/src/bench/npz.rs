//! Writes NumPy's `.npz`: an uncompressed zip archive of `.npy` arrays.

use jaq_shared::format::crc32;

/// An archive in the making.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    entries: u16,
}

impl Archive {
    /// Adds bytes.
    pub fn u8(&mut self, name: &str, shape: &[usize], values: &[u8]) {
        self.array(name, "|u1", shape, values);
    }

    /// Adds signed bytes.
    pub fn i8(&mut self, name: &str, shape: &[usize], values: &[i8]) {
        let bytes: Vec<u8> = values.iter().map(|&value| value as u8).collect();
        self.array(name, "|i1", shape, &bytes);
    }

    /// Adds 32-bit integers.
    pub fn i32(&mut self, name: &str, shape: &[usize], values: &[i32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(name, "<i4", shape, &bytes);
    }

    fn array(&mut self, name: &str, kind: &str, shape: &[usize], values: &[u8]) {
        let shape: String = shape.iter().map(|size| format!("{size},")).collect();
        let mut header =
            format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
        // Magic, version and length take 10 bytes; the values start at a multiple of 64.
        while !(10 + header.len() + 1).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(values);
        self.file(&format!("{name}.npy"), &file);
    }

    fn file(&mut self, name: &str, data: &[u8]) {
        let offset = self.bytes.len() as u32;
        // Version 2.0, no flags, stored, no time; 1980-01-01.
        let mut fields = [20u16, 0, 0, 0, 0x21].map(u16::to_le_bytes).concat();
        let size = (data.len() as u32).to_le_bytes();
        fields.extend(crc32(&[data]).to_le_bytes());
        fields.extend([size, size].concat());
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend([0, 0]);
        self.bytes.extend(b"PK\x03\x04");
        self.bytes.extend(&fields);
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(data);
        self.directory.extend(b"PK\x01\x02\x14\x00");
        self.directory.extend(&fields);
        // No comment, first disk, no attributes.
        self.directory.extend([0; 10]);
        self.directory.extend(offset.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.entries += 1;
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        let (start, size) = (self.bytes.len() as u32, self.directory.len() as u32);
        self.bytes.extend(&self.directory);
        self.bytes.extend(b"PK\x05\x06\x00\x00\x00\x00");
        self.bytes.extend([self.entries.to_le_bytes(); 2].concat());
        self.bytes.extend([size.to_le_bytes(), start.to_le_bytes()].concat());
        self.bytes.extend([0, 0]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_has_its_arrays_where_it_says() {
        let mut archive = Archive::default();
        archive.u8("a", &[2, 2], &[1, 2, 3, 4]);
        archive.i32("b", &[1], &[-1]);
        let bytes = archive.finish();
        assert_eq!(&bytes[..4], b"PK\x03\x04");
        // The values of the first array: after its zip header, name and 128-byte npy header.
        let name = 30 + "a.npy".len();
        assert_eq!(&bytes[name..name + 6], b"\x93NUMPY");
        assert_eq!(&bytes[name + 128..name + 132], &[1, 2, 3, 4]);
        let end = &bytes[bytes.len() - 22..];
        assert_eq!(&end[..4], b"PK\x05\x06");
        assert_eq!(end[8..12], [2, 0, 2, 0]);
        let start = u32::from_le_bytes(end[16..20].try_into().unwrap()) as usize;
        assert_eq!(&bytes[start..start + 4], b"PK\x01\x02");
    }
}
