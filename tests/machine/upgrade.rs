//! Programs are replaced while agents run.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use backstay::keeper::client::Client;

use crate::daemon::{Repo, River, until};
use crate::lab::lab;

/// Installs a program anew: it does what it did, and is another file.
fn install(from: &Path, place: &Path) {
    let new = place.with_extension("new");
    fs::copy(from, &new).expect("copied");
    fs::OpenOptions::new().append(true).open(&new).and_then(|mut file| file.write_all(b"\n")).expect("written");
    fs::rename(&new, place).expect("installed");
}

#[tokio::test]
async fn a_keeper_goes_on_as_the_program_that_was_installed_since() {
    let mut lab = lab("upgrade").await;
    let (program, place) = (lab.keeper.clone(), lab.at("backstay-keeper"));
    fs::copy(&program, &place).expect("copied");
    lab.keeper.clone_from(&place);
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let [folder] = &river.lab.instances()[..] else { panic!("one instance") };
    let processes = || {
        let mut keeper = Client::connect(folder, None).ok()?;
        let agent = keeper.status().ok()?.agent?;
        Some((keeper.identity().process, agent))
    };
    let before = processes().expect("a keeper and its agent");
    let exe = Path::new("/proc").join(before.0.pid.to_string()).join("exe");

    daemon.kill();
    install(&program, &place);
    assert_ne!(fs::read_link(&exe).expect("its program"), place, "it runs the one of before");
    let _daemon = river.start().await;
    until("it runs the new one", async || (fs::read_link(&exe).ok()? == place).then_some(())).await;
    let after = until("it is asked again", async || processes()).await;
    assert_eq!(after, before, "the same keeper with the same agent");
    assert_eq!(river.lab.knock("support", "/health/ready").await, Some(200));
}
