//! Brings a firmware onto the chip: into its flash by a flash algorithm, or into RAM where it is
//! linked there; verifies it and halts the core at its first instruction.

use std::path::Path;
use std::time::Duration;

use probe_rs::Session;
use probe_rs::flashing::{
    BootInfo, DownloadOptions, ElfLoader, ElfOptions, FlashProgress, ProgressEvent,
    ProgressOperation, build_loader,
};

use super::error::{ProbeError, attaching, flashing, loading};
use super::{Phase, Setup};

/// How long a core may take to halt.
pub const HALT: Duration = Duration::from_millis(500);

/// Flashes `elf`; afterwards the core is halted and about to run it.
pub fn load(
    session: &mut Session,
    setup: &Setup,
    elf: &Path,
    tell: &dyn Fn(Phase, u64, u64),
) -> Result<(), ProbeError> {
    let loader = build_loader(session, elf, ElfLoader(ElfOptions::default()), None)
        .map_err(|error| loading(&elf.display().to_string(), &error))?;
    let boot = loader.boot_info();

    // Bytes done and in all, by operation.
    let mut sums = [(0, 0); 3];
    let mut options = DownloadOptions::new();
    options.verify = true;
    options.progress = FlashProgress::new(move |event| {
        let phase = |operation| match operation {
            ProgressOperation::Fill => None,
            ProgressOperation::Erase => Some((0, Phase::Erase)),
            ProgressOperation::Program => Some((1, Phase::Program)),
            ProgressOperation::Verify => Some((2, Phase::Verify)),
        };
        let (operation, size) = match event {
            ProgressEvent::AddProgressBar { operation, total } => {
                if let Some((index, _)) = phase(operation) {
                    sums[index].1 += total.unwrap_or(0);
                }
                return;
            }
            ProgressEvent::Started(operation) => (operation, 0),
            ProgressEvent::Progress { operation, size, .. } => (operation, size),
            _ => return,
        };
        if let Some((index, phase)) = phase(operation) {
            sums[index].0 += size;
            tell(phase, sums[index].0, sums[index].1);
        }
    });
    loader.commit(session, options).map_err(|error| flashing(&error))?;

    let halt = |session: &mut Session| session.core(0)?.reset_and_halt(HALT).map(drop);
    halt(session)
        .and_then(|()| match boot {
            BootInfo::FromRam { vector_table_addr, .. } => {
                session.prepare_running_on_ram(vector_table_addr, 0)
            }
            BootInfo::Other => Ok(()),
        })
        .map_err(|error| attaching(&setup.chip, &error))
}
