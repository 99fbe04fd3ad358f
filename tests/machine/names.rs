//! Several hosts follow one repository: each daemon acts for its own name only.

use crate::daemon::{Repo, River, until};
use crate::lab::lab;

#[tokio::test]
async fn each_hosts_daemon_acts_for_its_own_name() {
    let mut one = lab("web1").await;
    one.more = "names = [\"web-1\"]\n".to_owned();
    let mut two = lab("web2").await;
    two.more = "names = [\"web-2\", \"web-3\"]\n".to_owned();
    let one = River::new(one, Repo::small()).await;
    let mut two = River::new(two, Repo::small()).await;
    // Both follow the same repository.
    two.source.clone_from(&one.source);

    // The machine of neither name: nothing is begun, and it is said why.
    let stranger = one.spawn_on("web-9", "stranger", "");
    until("it says so", async || stranger.log().contains("is of this machine, `web-9`").then_some(())).await;
    assert!(stranger.log().contains("`[target.host] names` says which machines serve it"), "{}", stranger.log());
    assert!(one.lab.instances().is_empty() && !one.lab.at("state/host").exists());

    // A file for all machines: what is another one's is passed over.
    let first = one.spawn_on("web-1.example.com", "one", "");
    one.settled(&one.repo.head()).await;
    one.greets("Hello!").await;
    assert!(two.lab.instances().is_empty(), "the other host is not touched");
    let second = two.spawn_on("web-3", "two", "");
    two.settled(&one.repo.head()).await;
    let pushed = one.repo.commit_greeting("Ahoy!");
    one.settled(&pushed).await;
    two.settled(&pushed).await;
    one.greets("Ahoy!").await;
    two.greets("Ahoy!").await;
    assert_ne!(one.lab.instances(), two.lab.instances());
    drop((first, second));
}
