//! Which probe, which chip: selects, opens, attaches, and makes sure that the chip is the board's.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use probe_rs::config::Registry;
use probe_rs::probe::list::Lister;
use probe_rs::probe::{DebugProbeSelector, WireProtocol};
use probe_rs::{CoreType, MemoryInterface, Permissions, Session, Target};

use super::Setup;
use super::error::{ProbeError, attaching, chain};

/// Probes to use instead of what is attached, as selectors between commas: network probes, which no
/// bus lists, or the bench that a test is allowed to touch.
const NAMED: &str = "JAQ_PROBES";
/// Cortex-M: identification of the core.
const CPUID: u64 = 0xe000_ed00;

/// A probe that is attached to this machine, or named in `JAQ_PROBES` instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What `--probe` takes.
    pub selector: String,
    /// For people.
    pub name: String,
}

/// Every probe there is.
pub fn list() -> Vec<Found> {
    if let Ok(named) = std::env::var(NAMED) {
        let selectors = named.split(',').map(str::trim).filter(|selector| !selector.is_empty());
        let found = |selector: &str| Found {
            selector: selector.to_owned(),
            name: format!("named in {NAMED}"),
        };
        return selectors.map(found).collect();
    }
    let attached = Lister::new().list_all().into_iter().map(|probe| {
        let serial = probe.serial_number.as_deref().map(|s| format!(":{s}")).unwrap_or_default();
        Found {
            selector: format!("{:04x}:{:04x}{serial}", probe.vendor_id, probe.product_id),
            name: probe.identifier.clone(),
        }
    });
    attached.collect()
}

/// The probe that was asked for, or the only one.
fn choose(asked: Option<&str>, found: impl FnOnce() -> Vec<Found>) -> Result<String, ProbeError> {
    if let Some(asked) = asked {
        return Ok(asked.to_owned());
    }
    let found = found();
    match &found[..] {
        [] => Err(ProbeError::NoProbe),
        [only] => Ok(only.selector.clone()),
        several => Err(ProbeError::Several(
            several
                .iter()
                .map(|probe| format!("  {} ({})\n", probe.selector, probe.name))
                .collect(),
        )),
    }
}

/// What is known before anything is touched: every chip, the board's, and which probe.
struct Plan {
    registry: Registry,
    target: Target,
    selector: String,
}

/// Fails where attaching could not succeed: the chip has no such name, or there is not one probe.
pub fn check(setup: &Setup) -> Result<(), ProbeError> {
    plan(setup).map(drop)
}

fn plan(setup: &Setup) -> Result<Plan, ProbeError> {
    let chip = &setup.chip;
    let mut registry = Registry::from_builtin_families();
    if let Some(description) = setup.description {
        registry.add_target_family_from_yaml(description).map_err(|error| {
            ProbeError::Description { chip: chip.clone(), reason: chain(&error) }
        })?;
    }
    let target = registry.get_target_by_name(chip).map_err(|error| {
        let mut similar = registry.search_chips(chip.get(..7).unwrap_or(chip));
        similar.truncate(5);
        let similar = match similar.is_empty() {
            true => format!(" ({})", chain(&error)),
            false => format!("; similar names: {}", similar.join(", ")),
        };
        ProbeError::UnknownChip { chip: chip.clone(), similar }
    })?;
    let selector = choose(setup.selector.as_deref(), list)?;
    Ok(Plan { registry, target, selector })
}

/// A session with a chip.
pub struct Attached {
    pub session: Session,
    /// The probe says of itself that it is made of software: no figure of it is a measurement.
    pub software: bool,
}

/// Attaches to the chip behind the probe.
pub fn attach(setup: &Setup) -> Result<Attached, ProbeError> {
    let chip = &setup.chip;
    let Plan { registry, target, selector: name } = plan(setup)?;
    let selector: DebugProbeSelector = name
        .parse()
        .map_err(|error| ProbeError::Selector { selector: name.clone(), reason: chain(&error) })?;
    let unopened = |reason: String| ProbeError::Open { selector: name.clone(), reason };
    let address = selector.serial_number.as_deref().and_then(|s| s.parse::<SocketAddr>().ok());
    if let Some(address) = address {
        // The library says only that it was not found.
        TcpStream::connect_timeout(&address, setup.timeout.min(Duration::from_secs(10)))
            .map_err(|error| unopened(format!("nothing answers at {address}: {error}")))?;
    }
    let mut probe = Lister::new().open(selector).map_err(|error| unopened(chain(&error)))?;
    let software = format!("{probe:?}").contains("virtual probe");
    let riscv = target.default_core().core_type == CoreType::Riscv;
    let protocol = if riscv { WireProtocol::Jtag } else { WireProtocol::Swd };
    probe.select_protocol(protocol).map_err(|error| unopened(chain(&error)))?;
    let permissions = match setup.allow_erase_all {
        true => Permissions::default().allow_erase_all(),
        false => Permissions::default(),
    };
    let mut session = probe
        .attach_with_registry(target, permissions, &registry)
        .map_err(|error| attaching(chip, &error))?;
    check_core(&mut session, setup)?;
    Ok(Attached { session, software })
}

/// Refuses a chip whose core is another than the board's.
fn check_core(session: &mut Session, setup: &Setup) -> Result<(), ProbeError> {
    let failed = |error| attaching(&setup.chip, &error);
    let mut core = session.core(0).map_err(failed)?;
    if !core.core_type().is_cortex_m() {
        return Ok(());
    }
    let id = core.read_word_32(CPUID).map_err(failed)?;
    match core_name(id) {
        Some(found) if found == setup.core => Ok(()),
        found => Err(ProbeError::WrongChip {
            expected: setup.core.clone(),
            found: found.map_or_else(|| format!("core with CPUID {id:#010x}"), str::to_owned),
        }),
    }
}

/// The core with that identification: its PARTNO, from Arm's technical reference manuals.
fn core_name(id: u32) -> Option<&'static str> {
    Some(match id >> 4 & 0xfff {
        0xc20 => "cortex-m0",
        0xc60 => "cortex-m0plus",
        0xc23 => "cortex-m3",
        0xc24 => "cortex-m4",
        0xc27 => "cortex-m7",
        0xd20 => "cortex-m23",
        0xd21 => "cortex-m33",
        0xd22 => "cortex-m55",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_chosen_only_if_there_is_no_doubt() {
        let found = |count: usize| {
            move || {
                let probe = |i| Found { selector: format!("1:2:{i}"), name: format!("probe {i}") };
                (0..count).map(probe).collect()
            }
        };
        assert_eq!(choose(Some("1:2"), found(3)).unwrap(), "1:2");
        assert_eq!(choose(None, found(1)).unwrap(), "1:2:0");
        assert!(matches!(choose(None, found(0)), Err(ProbeError::NoProbe)));
        let error = choose(None, found(2)).unwrap_err().to_string();
        assert!(error.contains("1:2:0 (probe 0)") && error.contains("--probe"), "{error}");
    }

    #[test]
    fn cores_are_told_by_their_identification() {
        assert_eq!(core_name(0x410f_c241), Some("cortex-m4"));
        assert_eq!(core_name(0x411f_c271), Some("cortex-m7"));
        assert_eq!(core_name(0), None);
    }
}
