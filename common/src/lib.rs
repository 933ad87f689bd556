//! What the kernel programs and the agent share: map keys and values, constants.
#![cfg_attr(not(feature = "user"), no_std)]
