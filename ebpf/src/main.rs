//! Evenkeel's kernel programs: they send an enrolled pod's connections to the agent's listener in that pod, and keep the app
//! from noticing.
//!
//! In the order in which a connection meets them: [`dial`] where it wants to go, [`enrolment`] who dials, [`decision`]
//! taken or straight, [`rewrite`] where it goes, [`counting`] what is counted, [`identity`] what the app sees.
//! [`arrival`] tells the agent of a pod's first process. [`maps`] is all that they share with the agent.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod arrival;
#[cfg(target_arch = "bpf")]
mod counting;
#[cfg(target_arch = "bpf")]
mod decision;
#[cfg(target_arch = "bpf")]
mod dial;
#[cfg(target_arch = "bpf")]
mod enrolment;
#[cfg(target_arch = "bpf")]
mod identity;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod rewrite;

#[cfg(target_arch = "bpf")]
mod programs;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// On any other target there is nothing to build: the programs are compiled for the kernel by a step of xtask's own.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
