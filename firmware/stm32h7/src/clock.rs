//! 480 MHz from the internal oscillator: no crystal, no jumper, and a count of cycles does not
//! depend on how exact a clock is.
//!
//! ST RM0433, chapters 6 (PWR: supply, voltage scaling, VOS0 by SYSCFG), 4.3.8 (flash latency) and 8
//! (RCC). HSI 64 MHz / 4 = 16 MHz, * 60 = 960 MHz, / 2 = 480 MHz for the core; half of it for AXI and
//! AHB, a quarter for the APBs. Revision Y of the die has no VOS0: 400 MHz at VOS1.

use jaq_harness::clock::settles;
use stm32_metapac::rcc::vals::{Hpre, Plldiv, Pllm, Plln, Pllrge, Pllsrc, Pllvcosel, Ppre, Sw};
use stm32_metapac::{DBGMCU, FLASH, PWR, RCC, SYSCFG, pwr};

/// Revision V of the die, the first with VOS0 (RM0433, DBGMCU_IDC).
const REVISION_V: u16 = 0x2000;

/// Brings the core to its speed; else why it stays at the 64 MHz of reset.
pub fn start() -> Result<(), &'static str> {
    let fast = DBGMCU.idc().read().rev_id() >= REVISION_V;
    // The supply is written once, before any other voltage: the LDO, as the board is wired.
    PWR.cr3().modify(|w| {
        w.set_bypass(false);
        w.set_ldoen(true);
    });
    if !settles(|| PWR.csr1().read().actvosrdy()) {
        return Err("the supply is not ready: the core stays at 64 MHz");
    }
    PWR.d3cr().modify(|w| w.set_vos(pwr::vals::Vos::SCALE1));
    if !settles(|| PWR.d3cr().read().vosrdy()) {
        return Err("VOS1 is not reached: the core stays at 64 MHz");
    }
    if fast {
        RCC.apb4enr().modify(|w| w.set_syscfgen(true));
        // A read, so that the clock is there before the next access.
        let _ = RCC.apb4enr().read();
        SYSCFG.pwrcr().modify(|w| w.set_oden(1));
        if !settles(|| PWR.d3cr().read().vosrdy()) {
            return Err("VOS0 is not reached: the core stays at 64 MHz");
        }
    }

    RCC.pllckselr().modify(|w| {
        w.set_pllsrc(Pllsrc::HSI);
        w.set_divm(0, Pllm::DIV4);
    });
    RCC.pllcfgr().modify(|w| {
        w.set_pllvcosel(0, Pllvcosel::WIDE_VCO);
        w.set_pllrge(0, Pllrge::RANGE8);
        w.set_pllfracen(0, false);
        w.set_divpen(0, true);
        w.set_divqen(0, false);
        w.set_divren(0, false);
    });
    RCC.plldivr(0).modify(|w| {
        w.set_plln(if fast { Plln::MUL60 } else { Plln::MUL50 });
        w.set_pllp(Plldiv::DIV2);
    });
    RCC.cr().modify(|w| w.set_pllon(0, true));
    if !settles(|| RCC.cr().read().pllrdy(0)) {
        return Err("the PLL does not lock: the core stays at 64 MHz");
    }

    // Slower buses and flash first, then the core.
    FLASH.acr().modify(|w| {
        w.set_latency(4);
        w.set_wrhighfreq(2);
    });
    if !settles(|| FLASH.acr().read().latency() == 4) {
        return Err("flash takes no wait states: the core stays at 64 MHz");
    }
    RCC.d1cfgr().modify(|w| {
        w.set_d1cpre(Hpre::DIV1);
        w.set_hpre(Hpre::DIV2);
        w.set_d1ppre(Ppre::DIV2);
    });
    RCC.d2cfgr().modify(|w| {
        w.set_d2ppre1(Ppre::DIV2);
        w.set_d2ppre2(Ppre::DIV2);
    });
    RCC.d3cfgr().modify(|w| w.set_d3ppre(Ppre::DIV2));
    RCC.cfgr().modify(|w| w.set_sw(Sw::PLL1_P));
    if !settles(|| RCC.cfgr().read().sws() == Sw::PLL1_P) {
        return Err("the PLL does not drive the core: it stays at 64 MHz");
    }
    if fast { Ok(()) } else { Err("revision Y of the die: 400 MHz, not 480") }
}
