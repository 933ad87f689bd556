//! The demo on a real Kubernetes, as a user would type it: install, label a namespace, scale, roll, upgrade, kill, uninstall.
//!
//! [`stage`] types, [`acts`] says in which order and what each must lead to, [`telling`] shows it.

mod acts;
mod stage;
mod telling;

use super::play::play;
use super::summary;
use crate::kubernetes::Cluster;
use crate::{interrupt, process};
use acts::ACTS;
use anyhow::Result;
use stage::ClusterStage;
use std::rc::Rc;
use telling::Telling;

/// Plays all acts, on the cluster that is up or else on one of its own; true when each went as it should.
///
/// # Errors
/// When the stage cannot be set up, a command fails, or someone interrupts.
pub fn run() -> Result<bool> {
    process::keep_quiet();
    interrupt::listen();
    let mut telling = Telling::new();
    let found = Cluster::find()?;
    let stays = found.is_some();
    let cluster = match found {
        Some(cluster) => cluster,
        None => {
            telling.say("starting a cluster of two nodes, which goes when the demo ends …");
            Cluster::start(2)?
        }
    };
    let cluster = Rc::new(cluster);
    let played = set_up_and_play(&cluster, &mut telling);
    if !matches!(played, Ok(true)) {
        eprintln!("{}", cluster.agents_last_words());
    }
    // What was shown counts, whatever becomes of the props.
    if stays && let Err(error) = stage::remove_all(&cluster) {
        eprintln!("not all that the demo has made is removed: {error:#}");
    }
    played
}

fn set_up_and_play(cluster: &Rc<Cluster>, telling: &mut Telling) -> Result<bool> {
    telling.say("the Services of an article on gRPC and Kubernetes: three Deployments, and one client with one channel");
    let mut stage = ClusterStage::set_up(Rc::clone(cluster))?;
    let mut verdicts = Vec::new();
    for (number, act) in ACTS.iter().enumerate() {
        telling.begin(number, act.title);
        let verdict = play(act, &mut stage, |tally, stage| telling.draw(tally, stage))?;
        telling.end(&verdict);
        let failed = verdict.failure.is_some();
        verdicts.push(verdict);
        if failed {
            break;
        }
    }
    telling::print_table(&verdicts);
    let well = verdicts.len() == ACTS.len() && verdicts.iter().all(|verdict| verdict.failure.is_none());
    if well {
        stage.check_that_no_pod_was_restarted()?;
    }
    summary::print_end(&verdicts, ACTS.len());
    Ok(well)
}
