//! A packed network computes what the wide-integer oracle computes, and no file, however
//! corrupted, makes loading or inference fail other than by an error.

mod random;

use jaq_deploy::engine::Engine;
use jaq_deploy::oracle;
use jaq_shared::format::{HEADER_BYTES, LoadError, Model, crc32};
use jaq_shared::runtime;
use proptest::prelude::*;

use random::{image, network, packed};

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_equals_the_oracle(seed in any::<u64>()) {
        let trained = network(seed);
        let (file, integers) = packed(&trained);
        let mut engine = Engine::new(&file).unwrap();
        let raw = image(&trained, seed ^ 99);
        let expected = oracle::infer(&trained, &integers, &raw);
        let found = engine.infer(&raw).unwrap();
        let found: Vec<i64> = runtime::codes(engine.output(), &found).map(i64::from).collect();
        prop_assert_eq!(&found, expected.last().unwrap());
        prop_assert_eq!(engine.infer_with_crcs(&raw).unwrap().1.len(), trained.network.layers.len());
    }

    /// Bytes changed anywhere are noticed; and where the checksum is made right again, the model
    /// is refused or runs, but never panics.
    #[test]
    fn corrupted_files_are_refused_or_harmless(
        seed in 0u64..8,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        description_only in any::<bool>(),
    ) {
        let trained = network(seed);
        let (file, _) = packed(&trained);
        let mut bad = file.clone();
        let limit = if description_only {
            HEADER_BYTES + u32::from_le_bytes(bad[12..16].try_into().unwrap()) as usize
        } else {
            bad.len()
        };
        for (index, value) in &changes {
            let at = index.index(limit);
            bad[at] = *value;
        }
        if bad == file {
            return Ok(());
        }
        prop_assert!(Engine::new(&bad).is_err());
        let crc = crc32(&[&bad[..28], &bad[HEADER_BYTES..]]);
        bad[28..32].copy_from_slice(&crc.to_le_bytes());
        if let Ok(mut engine) = Engine::new(&bad) {
            let _ = engine.infer(&image(&trained, 5));
        }
    }

    #[test]
    fn truncated_files_are_refused(seed in 0u64..4, keep in any::<prop::sample::Index>()) {
        let (file, _) = packed(&network(seed));
        let keep = keep.index(file.len());
        let refused = matches!(Engine::new(&file[..keep]), Err(LoadError::Truncated { .. }));
        prop_assert!(refused);
    }
}

#[test]
fn another_version_is_refused_with_both_named() {
    let (mut file, _) = packed(&network(3));
    file[4] = 9;
    let message = Engine::new(&file).err().unwrap().to_string();
    assert!(message.contains("version 9") && message.contains("version 1"), "{message}");
}

#[test]
fn class_names_and_origin_travel_with_the_model() {
    let (file, _) = packed(&network(3));
    let engine = Engine::new(&file).unwrap();
    let model: Model = engine.model();
    assert_eq!(model.classes().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!((model.info().tool, model.info().seed), ("test", 1));
    assert_eq!(model.layers().map(|l| l.name).next(), Some("stem"));
}
