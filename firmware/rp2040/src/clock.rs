//! 133 MHz from the Pico's crystal.
//!
//! RP2040 data sheet, chapters 2.14 (resets), 2.15 (clocks), 2.16 (crystal oscillator) and 2.18 (PLL):
//! 12 MHz * 133 = 1596 MHz, / 6 / 2 = 133 MHz.

use jaq_harness::clock::settles;
use rp_pac::clocks::vals::{ClkRefCtrlSrc, ClkSysCtrlAuxsrc, ClkSysCtrlSrc};
use rp_pac::xosc::vals::{CtrlFreqRange, Enable};
use rp_pac::{CLOCKS, PLL_SYS, RESETS, XOSC};

/// Starting the crystal: a millisecond in 256 of its cycles.
const STARTUP: u16 = 47;

/// Brings the core to its speed; else why it stays at the ring oscillator's of reset.
pub fn start() -> Result<(), &'static str> {
    XOSC.startup().write(|w| w.set_delay(STARTUP));
    XOSC.ctrl().write(|w| {
        w.set_freq_range(CtrlFreqRange::_1_15MHZ);
        w.set_enable(Enable::ENABLE);
    });
    if !settles(|| XOSC.status().read().stable()) {
        return Err("the crystal does not start: the core stays on its ring oscillator");
    }
    RESETS.reset().modify(|w| w.set_pll_sys(true));
    RESETS.reset().modify(|w| w.set_pll_sys(false));
    if !settles(|| RESETS.reset_done().read().pll_sys()) {
        return Err("the PLL stays in reset: the core stays on its ring oscillator");
    }
    PLL_SYS.cs().write(|w| w.set_refdiv(1));
    PLL_SYS.fbdiv_int().write(|w| w.set_fbdiv_int(133));
    PLL_SYS.pwr().modify(|w| {
        w.set_pd(false);
        w.set_vcopd(false);
    });
    if !settles(|| PLL_SYS.cs().read().lock()) {
        return Err("the PLL does not lock: the core stays on its ring oscillator");
    }
    PLL_SYS.prim().write(|w| {
        w.set_postdiv1(6);
        w.set_postdiv2(2);
    });
    PLL_SYS.pwr().modify(|w| w.set_postdivpd(false));

    CLOCKS.clk_ref_ctrl().modify(|w| w.set_src(ClkRefCtrlSrc::XOSC_CLKSRC));
    CLOCKS.clk_sys_ctrl().modify(|w| w.set_auxsrc(ClkSysCtrlAuxsrc::CLKSRC_PLL_SYS));
    CLOCKS.clk_sys_ctrl().modify(|w| w.set_src(ClkSysCtrlSrc::CLKSRC_CLK_SYS_AUX));
    // One bit for the source that is selected: bit 1 is the auxiliary one.
    match settles(|| CLOCKS.clk_sys_selected().read() == 2) {
        true => Ok(()),
        false => Err("the PLL does not drive the core: it stays on its crystal"),
    }
}
