//! Small trainings: resumed, exported, and ended by what can be wrong with them.

use super::*;
use crate::space::tests::small_space;
use crate::space::{Choice, Space};

fn network() -> Network {
    let space: Space = small_space();
    // The cheapest operators, mixed widths.
    let choice = Choice {
        operators: space.sections.iter().map(|_| 0).collect(),
        widths: space.genes.iter().enumerate().map(|(i, g)| i % g.options.len()).collect(),
    };
    space.network(&choice)
}

fn run(
    mode: Mode,
    config: &RetrainConfig,
    start: Start<'_>,
    folder: Option<&Path>,
    stop_after: Option<u64>,
) -> Result<Retrained, TrainError> {
    let data = crate::data::subset::open().unwrap().reduced(192, 100);
    let control = Control { progress: &mut |_| (), folder, stop_after };
    retrain(&network(), mode, &data, config, start, control)
}

fn config() -> RetrainConfig {
    RetrainConfig { epochs: 2, batch: 32, ..RetrainConfig::default() }
}

#[test]
fn killed_retraining_resumes_to_the_same_bytes() {
    let float = run(Mode::Float, &config(), Start::default(), None, None).unwrap();
    assert!(float.trained.is_none());
    let start = Start { values: Some(&float.values), teacher: Some((&float.values).into()) };
    let whole = run(Mode::Quantized, &config(), start, None, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let stopped = run(Mode::Quantized, &config(), start, Some(dir.path()), Some(8));
    assert!(matches!(stopped, Err(TrainError::Stopped { step: 8 })));
    let resumed = run(Mode::Quantized, &config(), start, Some(dir.path()), None).unwrap();
    assert_eq!(resumed.values, whole.values);
    assert_eq!(resumed.trained, whole.trained);
    let other = run(Mode::Quantized, &config(), Start::default(), Some(dir.path()), None);
    assert!(other.unwrap_err().to_string().contains("other settings"));
}

/// The last epoch by integers, taught by another network: it changes what is learned, and a killed
/// training goes on in its middle.
#[test]
fn integer_epochs_and_other_teachers_resume_to_the_same_bytes() {
    let network = network();
    let mut large = network.clone();
    large.name = "teacher".into();
    let fresh = run(Mode::Float, &config(), Start::default(), None, None).unwrap().values;
    // As a supernet's: without statistics.
    let values: Values = fresh
        .into_iter()
        .filter(|(name, _)| !name.ends_with(".mean") && !name.ends_with(".var"))
        .collect();
    let teacher = Some(Teacher { network: Some(&large), values: &values });
    let start = Start { values: None, teacher };
    let config = RetrainConfig { epochs: 3, integer_epochs: 1, ..config() };
    let whole = run(Mode::Quantized, &config, start, None, None).unwrap();
    whole.trained.as_ref().unwrap().validate().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let stopped = run(Mode::Quantized, &config, start, Some(dir.path()), Some(14));
    assert!(matches!(stopped, Err(TrainError::Stopped { step: 14 })));
    let resumed = run(Mode::Quantized, &config, start, Some(dir.path()), None).unwrap();
    assert_eq!(resumed.values, whole.values);
    for other in [
        run(
            Mode::Quantized,
            &RetrainConfig { integer_epochs: 0, ..config.clone() },
            start,
            None,
            None,
        ),
        run(Mode::Quantized, &config, Start::default(), None, None),
    ] {
        assert_ne!(other.unwrap().values, whole.values);
    }
}

#[test]
fn divergence_is_one_error_and_resumable() {
    let dir = tempfile::tempdir().unwrap();
    let wild = RetrainConfig { rate: 1e30, epochs: 3, ..config() };
    let found = run(Mode::Float, &wild, Start::default(), Some(dir.path()), None);
    let message = found.unwrap_err().to_string();
    assert!(message.contains("diverged") && message.contains("learning rate"), "{message}");
    // Whatever checkpoint there is was sound: the same run goes on from it to the same end.
    let again = run(Mode::Float, &wild, Start::default(), Some(dir.path()), None);
    assert_eq!(again.unwrap_err().to_string(), message);
}

#[test]
fn other_images_and_missing_libraries_are_named() {
    let mut data = crate::data::subset::open().unwrap().reduced(64, 10);
    data.classes.push("sock".into());
    let train = |config: &RetrainConfig, data: &Dataset| {
        let control = Control { progress: &mut |_| (), folder: None, stop_after: None };
        retrain(&network(), Mode::Float, data, config, Start::default(), control)
    };
    let message = train(&config(), &data).unwrap_err().to_string();
    assert!(message.contains("28x28x1") && message.contains("11 classes"), "{message}");
    data.classes.pop();
    if cfg!(not(feature = "tch")) {
        let torch = RetrainConfig { library: Library::Tch, ..config() };
        assert!(train(&torch, &data).unwrap_err().to_string().contains("--features tch"));
    }
}

#[test]
fn clipping_levels_train_as_well() {
    let config = RetrainConfig { activations: StepRule::Pact, epochs: 1, ..config() };
    let done = run(Mode::Quantized, &config, Start::default(), None, None).unwrap();
    done.trained.unwrap().validate().unwrap();
}

#[test]
fn export_is_a_valid_network_at_the_asked_widths() {
    let config = RetrainConfig { epochs: 1, ..config() };
    let uniform = Mode::Uniform { weight: Bits::B8, activation: Bits::B8 };
    for mode in [Mode::Quantized, uniform] {
        let done = run(mode, &config, Start::default(), None, None).unwrap();
        let trained = done.trained.unwrap();
        trained.validate().unwrap();
        let wanted = match mode {
            Mode::Quantized => network(),
            _ => network().with_uniform_bits(Bits::B8, Bits::B8),
        };
        assert_eq!(trained.network, wanted);
        assert_eq!(trained.scales[0], 1.0 / 255.0);
    }
}

#[test]
fn largest_logit_decides() {
    let logits = [1.0, 3.0, 2.0, 5.0, 5.0, 0.0];
    assert_eq!(right(&logits, &[1, 0]), 2);
    assert_eq!(right(&logits, &[2, 1]), 0);
}
