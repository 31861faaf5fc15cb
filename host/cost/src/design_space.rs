//! A design space: the description of an accelerator with ranges; every combination of their
//! values is a configuration. Must not know: layers, costs.

use serde::Deserialize;

use crate::accelerator::Tiled;
use crate::board::{self, BoardError};

/// Most configurations a space may have.
const LIMIT: usize = 1_000_000;

/// A described space of accelerators.
#[derive(Clone, Debug)]
pub struct DesignSpace {
    /// Name, that of the file.
    pub name: String,
    file: String,
    base: toml::Table,
    axes: Vec<(String, Vec<toml::Value>)>,
}

impl DesignSpace {
    /// The shipped space `name`, or the user's own file of that path.
    pub fn load(name: &str) -> Result<DesignSpace, BoardError> {
        DesignSpace::parse(name, &board::source(name)?)
    }

    /// Parses and validates the text of a space; `file` is named in errors.
    pub fn parse(file: &str, text: &str) -> Result<DesignSpace, BoardError> {
        #[derive(Deserialize)]
        struct Head {
            name: String,
            ranges: toml::Table,
        }
        let fail = |field: &str, reason: String| Err(BoardError::field(file, field, reason));
        let Head { name, ranges } = board::parse(file, text)?;
        board::check_name(file, &name)?;
        let mut base: toml::Table = board::parse(file, text)?;
        base.remove("ranges");
        base.insert("kind".to_owned(), "accelerator".into());
        let mut axes = Vec::new();
        for (path, values) in ranges {
            match values {
                toml::Value::Array(values) if !values.is_empty() => axes.push((path, values)),
                _ => return fail(&format!("ranges.\"{path}\""), "must list values".to_owned()),
            }
        }
        let space = DesignSpace { name, file: file.to_owned(), base, axes };
        let count = space.axes.iter().try_fold(1usize, |n, (_, v)| n.checked_mul(v.len()));
        if count.is_none_or(|count| count > LIMIT) {
            return fail("ranges", format!("make more than {LIMIT} configurations"));
        }
        // Every value once, the others at their first: mistakes show when the file is read.
        for (axis, (_, values)) in space.axes.iter().enumerate() {
            for value in 0..values.len() {
                let mut at = vec![0; space.axes.len()];
                at[axis] = value;
                space.configuration(&at)?;
            }
        }
        Ok(space)
    }

    /// Number of configurations.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.axes.iter().map(|(_, values)| values.len()).product()
    }

    /// Paths of the ranges with the number of their values, in the order of indices.
    pub fn axes(&self) -> impl Iterator<Item = (&str, usize)> {
        self.axes.iter().map(|(path, values)| (&**path, values.len()))
    }

    /// Index of every range's value in the configuration `index`; the last range is the fastest.
    pub fn indices(&self, index: usize) -> Vec<usize> {
        let mut left = index;
        let mut at: Vec<usize> = self
            .axes
            .iter()
            .rev()
            .map(|(_, values)| {
                let here = left % values.len();
                left /= values.len();
                here
            })
            .collect();
        at.reverse();
        at
    }

    /// The configuration with these values, one index a range: the inverse of [`Self::indices`].
    pub fn index(&self, at: &[usize]) -> usize {
        self.axes.iter().zip(at).fold(0, |index, ((_, values), i)| index * values.len() + i)
    }

    /// The configuration `index`, below [`Self::len`].
    pub fn at(&self, index: usize) -> Result<Tiled, BoardError> {
        self.configuration(&self.indices(index))
    }

    /// The values of the configuration `index`, in words.
    pub fn describe(&self, index: usize) -> String {
        let at = self.indices(index);
        let value = |((path, values), i): (&(String, Vec<toml::Value>), usize)| {
            format!("{path} = {}", values[i])
        };
        self.axes.iter().zip(at).map(value).collect::<Vec<_>>().join(", ")
    }

    fn configuration(&self, at: &[usize]) -> Result<Tiled, BoardError> {
        let mut table = self.base.clone();
        for ((path, values), &i) in self.axes.iter().zip(at) {
            let place = find(&mut table, path).ok_or_else(|| BoardError::Field {
                file: self.file.clone(),
                field: format!("ranges.\"{path}\""),
                reason: "is no field of the description".to_owned(),
            })?;
            *place = values[i].clone();
        }
        let text = toml::to_string(&table).map_err(|error| BoardError::Syntax {
            file: self.file.clone(),
            reason: error.to_string(),
        })?;
        Tiled::parse(&self.file, &text)
    }
}

/// The value at a path such as `buffer.0.bytes`.
fn find<'a>(table: &'a mut toml::Table, path: &str) -> Option<&'a mut toml::Value> {
    let mut steps = path.split('.');
    let mut value = table.get_mut(steps.next()?)?;
    for step in steps {
        value = match value {
            toml::Value::Table(table) => table.get_mut(step)?,
            toml::Value::Array(array) => array.get_mut(step.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, names};

    #[test]
    fn every_configuration_of_every_shipped_space_is_valid() {
        let spaces = names(Some(Kind::DesignSpace));
        assert!(spaces.contains(&"bitfusion-space") && spaces.len() >= 2);
        for name in spaces {
            let space = DesignSpace::load(name).unwrap_or_else(|e| panic!("{e}"));
            assert!(space.len() >= 1000, "{name}: {}", space.len());
            let mut seen = std::collections::HashSet::new();
            for index in 0..space.len() {
                let found = space.at(index).unwrap_or_else(|e| panic!("{name} {index}: {e}"));
                assert!(seen.insert(format!("{found:?}")), "{name}: {index} is there twice");
            }
        }
    }

    #[test]
    fn the_published_configuration_is_in_the_space() {
        let space = DesignSpace::load("bitfusion-space").unwrap();
        let text = include_str!("../../../boards/bitfusion.toml");
        let wanted = Tiled::parse("bitfusion", text).unwrap();
        let same = |found: &Tiled| {
            (&found.array, &found.buffer, &found.memory, &found.mapping)
                == (&wanted.array, &wanted.buffer, &wanted.memory, &wanted.mapping)
        };
        let index = (0..space.len()).find(|&i| same(&space.at(i).unwrap())).unwrap();
        assert!(space.describe(index).contains("array.rows = 16"), "{}", space.describe(index));
        assert_eq!(space.index(&space.indices(index)), index);
    }

    #[test]
    fn mistakes_in_ranges_are_named() {
        let text = include_str!("../../../boards/bitfusion-space.toml");
        for (from, to, expected) in [
            ("\"array.rows\" = [8, 16, 32]", "\"array.rows\" = [8, 0]", "array.rows"),
            ("\"array.rows\" = [8, 16, 32]", "\"array.row\" = [8]", "is no field"),
            ("\"array.rows\" = [8, 16, 32]", "\"array.rows\" = 8", "must list values"),
            ("\"buffer.0.bytes\"", "\"buffer.7.bytes\"", "is no field"),
        ] {
            assert!(text.contains(from), "{from}");
            let error = DesignSpace::parse("bitfusion-space", &text.replace(from, to));
            let message = error.unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
