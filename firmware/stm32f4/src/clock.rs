//! 168 MHz from the internal oscillator: whatever crystal a board has, and a count of cycles does
//! not depend on how exact a clock is.
//!
//! ST RM0090, chapters 3.5 (flash interface), 5.4 (PWR) and 7.3 (RCC). HSI 16 MHz / 8 = 2 MHz, * 168 =
//! 336 MHz, / 2 = 168 MHz for core and AHB; a quarter for APB1, half for APB2.

use jaq_harness::clock::settles;
use stm32_metapac::flash::vals::Latency;
use stm32_metapac::pwr::vals::Vos;
use stm32_metapac::rcc::vals::{Hpre, Pllm, Plln, Pllp, Pllq, Pllsrc, Ppre, Sw};
use stm32_metapac::{FLASH, PWR, RCC};

/// Brings the core to its speed; else why it stays at the 16 MHz of reset.
pub fn start() -> Result<(), &'static str> {
    RCC.apb1enr().modify(|w| w.set_pwren(true));
    // A read, so that the clock is there before the next access.
    let _ = RCC.apb1enr().read();
    PWR.cr1().modify(|w| w.set_vos(Vos::SCALE1));
    RCC.pllcfgr().modify(|w| {
        w.set_pllsrc(Pllsrc::HSI);
        w.set_pllm(Pllm::DIV8);
        w.set_plln(Plln::MUL168);
        w.set_pllp(Pllp::DIV2);
        w.set_pllq(Pllq::DIV7);
    });
    RCC.cr().modify(|w| w.set_pllon(true));
    if !settles(|| RCC.cr().read().pllrdy()) {
        return Err("the PLL does not lock: the core stays at 16 MHz");
    }
    // Slower buses and flash first, then the core. Prefetch and both caches: the ART accelerator.
    FLASH.acr().modify(|w| {
        w.set_latency(Latency::WS5);
        w.set_prften(true);
        w.set_icen(true);
        w.set_dcen(true);
    });
    if !settles(|| FLASH.acr().read().latency() == Latency::WS5) {
        return Err("flash takes no wait states: the core stays at 16 MHz");
    }
    RCC.cfgr().modify(|w| {
        w.set_hpre(Hpre::DIV1);
        w.set_ppre1(Ppre::DIV4);
        w.set_ppre2(Ppre::DIV2);
    });
    RCC.cfgr().modify(|w| w.set_sw(Sw::PLL1_P));
    if !settles(|| RCC.cfgr().read().sws() == Sw::PLL1_P) {
        return Err("the PLL does not drive the core: it stays at 16 MHz");
    }
    Ok(())
}
